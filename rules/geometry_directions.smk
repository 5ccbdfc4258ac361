# Directions of heads and MLPs of the circuits, and neurons of their MLPs: parts of components in place of components.


# What both take of the study
ON_ANSWERS = {
    **STATISTICS,
    "run": run_settings,
    "tasks": EXPLAINED_MAIN,
    "kind": config["ablation"]["kind"],
    "classes": config["geometry"]["classes"],
    "fillers": config["prompts"]["fillers"],
    "members": words_of_tasks(),
}


rule read_directions:
    input:
        **of_answers(),
    output:
        **of_geometry("directions"),
    log:
        "logs/{model}/read_directions.log",
    benchmark:
        "benchmarks/{model}/read_directions.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 60, gpu=True),
    params:
        **ON_ANSWERS,
        **config["geometry"]["directions"],
        code=library("scripts/read_directions.py"),
    message:
        "Read the directions of the heads and MLPs of {wildcards.model}"
    script:
        "../scripts/read_directions.py"


rule find_neurons:
    input:
        **of_answers(),
    output:
        **of_geometry("neurons"),
    log:
        "logs/{model}/find_neurons.log",
    benchmark:
        "benchmarks/{model}/find_neurons.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 60, gpu=True),
    params:
        **ON_ANSWERS,
        **config["geometry"]["neurons"],
        code=library("scripts/find_neurons.py"),
    message:
        "Find the neurons of the MLPs of {wildcards.model}"
    script:
        "../scripts/find_neurons.py"
