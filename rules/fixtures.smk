# Planted models with known circuits. Outside `rule all`: run `snakemake --cores 2 certify` to prove the searches on them.


rule build_fixtures:
    output:
        models=directory("results/fixtures/models"),
        truth=ensure("results/fixtures/fixtures.json", non_empty=True),
    log:
        "logs/build_fixtures.log",
    benchmark:
        "benchmarks/build_fixtures.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=library("scripts/build_fixtures.py"),
    message:
        "Build the planted models"
    script:
        "../scripts/build_fixtures.py"


rule certify:
    input:
        models="results/fixtures/models",
        truth="results/fixtures/fixtures.json",
    output:
        table=ensure("results/fixtures/certify.parquet", non_empty=True),
        csv=ensure("results/fixtures/certify.csv", non_empty=True),
        page=ensure("results/fixtures/certify.html", non_empty=True),
    log:
        "logs/certify.log",
    benchmark:
        "benchmarks/certify.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=library("scripts/certify.py"),
    message:
        "Search the planted circuits by every method"
    script:
        "../scripts/certify.py"
