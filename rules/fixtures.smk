# Planted models with known circuits. Outside `rule all`: run `snakemake --cores 2 certify` to prove the searches on them,
# `snakemake --cores 2 leaderboard` to compare all methods.


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


# ---- leaderboard: every method on the planted models and on models whose circuit is not known ----------------
rule measure_board:
    input:
        models=lambda wildcards: "results/fixtures/models" if wildcards.part in board_parts.PLANTED else [],
    output:
        table="results/leaderboard/parts/{part}.parquet",
        cost="results/leaderboard/parts/{part}.cost.parquet",
    log:
        "logs/leaderboard/{part}.log",
    benchmark:
        "benchmarks/leaderboard/{part}.tsv"
    wildcard_constraints:
        part=one_of(BOARD_PARTS),
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 240),
    params:
        code=lambda wildcards: library_of_board(wildcards.part),
        part=lambda wildcards: wildcards.part,
        tried=lambda wildcards: board_task(wildcards.part),
        files=lambda wildcards: board_files(wildcards.part),
    message:
        "Run every method on {wildcards.part}"
    script:
        "../scripts/measure_board.py"


rule gather_board:
    input:
        tables=expand("results/leaderboard/parts/{part}.parquet", part=BOARD_PARTS),
    output:
        **filled(
            "results/leaderboard",
            table="leaderboard.parquet",
            table_csv="leaderboard.csv",
            ranks="ranks.parquet",
            ranks_csv="ranks.csv",
            figure="leaderboard.svg",
            png="leaderboard.png",
            pdf="leaderboard.pdf",
        ),
    log:
        "logs/leaderboard/gather_board.log",
    benchmark:
        "benchmarks/leaderboard/gather_board.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(2000, 20),
    params:
        **STATISTICS,
        code=library("scripts/gather_board.py"),
        dpi=config["figures"]["dpi"],
    message:
        "Rank the methods of the leaderboard"
    script:
        "../scripts/gather_board.py"


rule gather_board_cost:
    input:
        expand("results/leaderboard/parts/{part}.cost.parquet", part=BOARD_PARTS),
    output:
        "results/leaderboard/cost.csv",
    log:
        "logs/leaderboard/gather_board_cost.log",
    benchmark:
        "benchmarks/leaderboard/gather_board_cost.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(2000, 20),
    params:
        code=library("scripts/gather_board_cost.py"),
    message:
        "Put the costs of the methods together"
    script:
        "../scripts/gather_board_cost.py"


rule leaderboard:
    input:
        table="results/leaderboard/leaderboard.parquet",
        cost="results/leaderboard/cost.csv",
