# Planted models with known circuits. Outside `rule all`: run `snakemake --cores 2 certify` to prove the searches on them.


rule build_fixtures:
    output:
        **filled("results/fixtures", truth="fixtures.json"),
        models=directory("results/fixtures/models"),
    log:
        "logs/build_fixtures.log",
    benchmark:
        "benchmarks/build_fixtures.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(2000, 20),
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
        **filled("results/fixtures", table="certify.parquet", csv="certify.csv", page="certify.html"),
    log:
        "logs/certify.log",
    benchmark:
        "benchmarks/certify.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(2000, 60),
    params:
        code=library("scripts/certify.py"),
    message:
        "Search the planted circuits by every method"
    script:
        "../scripts/certify.py"
