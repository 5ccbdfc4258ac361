# The model that ships with the project. Outside `rule all`: run `snakemake --cores 2 train_ladder` to train it anew.


rule train_ladder:
    output:
        log="results/training/ladder-6x8/training_log.csv",
        evaluation="results/training/ladder-6x8/evaluation.csv",
        model=directory("results/training/ladder-6x8/model"),
    log:
        "logs/train_ladder.log",
    benchmark:
        "benchmarks/train_ladder.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 2
    resources:
        **needs(4000, 120),
    params:
        code=library("scripts/train_model.py"),
        spec=places.contents([ROOT / "resources/models/ladder-6x8/training.yaml"]),
    message:
        "Train the model that ships with the project (about an hour on 2 cores)"
    script:
        "../scripts/train_model.py"
