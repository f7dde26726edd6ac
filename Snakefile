"""Model of the zoo -> chapter -> records -> site.

Called by `dlatlas build`, which adds the lock, the display and the summary.
"""

from pathlib import Path

from dlatlas.publish import dependencies, zoo
from dlatlas.publish.layout import Layout

# Paths relative to the repository, so that a moved repository is still up to date.
LAYOUT = Layout(Path(), config["profile"])
CHAPTERS = config["chapters"].split(",")
zoo.keep_with_the_build(LAYOUT)


localrules:
    site,
    records,


rule site:
    input:
        LAYOUT.records,
        list(map(LAYOUT.executed, CHAPTERS)),
        sorted(file for folder in ("book", "notebooks", "src") for file in Path(folder).rglob("*") if file.is_file()),
        "_config.yml",
    output:
        LAYOUT.html / "index.html",
    log:
        LAYOUT.build / "logs" / "site.log",
    params:
        profile=LAYOUT.profile,
    shell:
        "echo 'Building the site ...'; python -m dlatlas.publish site --profile {params.profile} > {log} 2>&1"


rule records:
    input:
        list(map(LAYOUT.record, CHAPTERS)),
    output:
        LAYOUT.records,
    log:
        LAYOUT.build / "logs" / "records.log",
    params:
        profile=LAYOUT.profile,
    shell:
        "python -m dlatlas.publish records --profile {params.profile} > {log} 2>&1"


rule chapter:
    input:
        lambda wildcards: dependencies.files(wildcards.chapter, LAYOUT),
        lambda wildcards: zoo.made_files(wildcards.chapter, LAYOUT),
    output:
        notebook=str(LAYOUT.executed("{chapter}")),
        record=str(LAYOUT.record("{chapter}")),
    log:
        str(LAYOUT.log("{chapter}")),
    params:
        profile=LAYOUT.profile,
        registered=lambda wildcards: dependencies.registered(wildcards.chapter),
    threads: 1
    resources:
        gpu=int(LAYOUT.profile == "gpu"),
        mem_mb=4000,
        runtime=60,
    # The run watches its parent, which through `exec` is Snakemake itself and not a shell between them.
    shell:
        "exec python -m dlatlas.publish execute {wildcards.chapter} --profile {params.profile}"
        " --output-notebook {output.notebook} --output-record {output.record} > {log} 2>&1"


rule zoo:
    input:
        lambda wildcards: zoo.recipe_files(wildcards.model, LAYOUT),
    output:
        str(zoo.made_file("{model}", LAYOUT)),
    log:
        str(LAYOUT.log("zoo/{model}")),
    params:
        profile=LAYOUT.profile,
    threads: 1
    resources:
        gpu=int(LAYOUT.profile == "gpu"),
        mem_mb=4000,
        runtime=60,
    shell:
        "exec python -m dlatlas.publish zoo {wildcards.model} --profile {params.profile} > {log} 2>&1"
