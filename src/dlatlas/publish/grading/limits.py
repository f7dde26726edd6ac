"""How much of a cell's output is kept, and of what kind."""

# Formats that cannot run a script in the browser of whoever looks at the notebook.
SHOWN_FORMATS = ("text/plain", "text/latex", "image/png", "image/jpeg")
LONGEST_TEXT = 50_000
MOST_OUTPUTS = 100
MOST_CHARACTERS = 2_000_000
# An answer with so many characters is shorter, also where each is written as an escape.
LARGEST_ANSWER = 2**24
