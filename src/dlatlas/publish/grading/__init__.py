"""Grading of submissions, which are untrusted code.

A submission is run by two processes that never meet. The student's process, inside a sandbox, runs the cells of the
notebook. The tests run in another process, in a sandbox of its own, where the student's functions are stand-ins: a call
travels to the student's process, and what comes back is read as plain values and tensors. So the student's code can
return whatever it likes, but it cannot change a comparison, see a test, or write a result.
"""
