# Models and prompts, and what a model does on them unharmed.

MODEL_FIRST = 3  # priority: a study that its model cannot be served ends before anything is searched
DATA_FIRST = 2  # priority: what is wrong with the prompts of any task is said before a search of another one begins
ALONE_FIRST = 1  # priority: a search by ascending effect finds the single ablations that it needs in the memo


rule build_random_model:
    output:
        directory("results/{model}/checkpoint"),
    log:
        "logs/{model}/build_random_model.log",
    benchmark:
        "benchmarks/{model}/build_random_model.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(16000, 60),
    params:
        code=library("scripts/build_random_model.py"),
        source=random_source,
        seed=config["statistics"]["seed"],
    message:
        "Build {wildcards.model}"
    script:
        "../scripts/build_random_model.py"


localrules:
    fetch_models,  # where there is a network, which the nodes of a cluster may lack


rule fetch_models:
    log:
        "logs/fetch_models.log",
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(8000, 60),
    params:
        code=library("scripts/fetch_models.py"),
        models=[] if RANDOM else MODELS,
    message:
        "Fetch the models of the study"
    script:
        "../scripts/fetch_models.py"


rule check_model:
    input:
        checkpoint,
    output:
        "results/{model}/model.json",
    log:
        "logs/{model}/check_model.log",
    benchmark:
        "benchmarks/{model}/check_model.tsv"
    priority: MODEL_FIRST
    group:
        "prompts"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 60, gpu=True),
    params:
        code=library("scripts/check_model.py"),
        source=model_source,
        device=lambda wildcards: model_block(wildcards)["device"],
        dtype=lambda wildcards: model_block(wildcards)["dtype"],
        random_weights=RANDOM,
    message:
        "Find and check model {wildcards.model}"
    script:
        "../scripts/check_model.py"


rule check_analyses:
    input:
        model="results/{model}/model.json",
    output:
        ensure("results/{model}/analyses.json", non_empty=True),
    log:
        "logs/{model}/check_analyses.log",
    benchmark:
        "benchmarks/{model}/check_analyses.tsv"
    priority: MODEL_FIRST
    group:
        "prompts"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 60, gpu=True),
    params:
        code=library("scripts/check_analyses.py"),
        run=run_settings,
        heads=ANALYSES,
        edges=WITH_EDGES,
        order=ORDER,
        features={"hook": config["geometry"]["features"]["hook"], "loaded": autoencoder_files()},
        named=named_components(),
        circuits=own_circuits(),
    message:
        "Check what can be found out about {wildcards.model}"
    script:
        "../scripts/check_analyses.py"


rule make_prompts:
    input:
        model="results/{model}/model.json",
    output:
        **filled(
            "results/{model}/{task}",
            prompts="prompts.parquet",
            summary="prompts.json",
            tokens="tokens.parquet",
            rejected="rejected.parquet",
        ),
    log:
        "logs/{model}/{task}/make_prompts.log",
    benchmark:
        "benchmarks/{model}/{task}/make_prompts.tsv"
    priority: DATA_FIRST
    group:
        "prompts"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(2000, 20),
    params:
        code=library_of_task("scripts/make_prompts.py"),
        task=task_settings,
        files=task_files,
        prepend_bos=prepend_bos,
    message:
        "Make prompts of {wildcards.task} for {wildcards.model}"
    script:
        "../scripts/make_prompts.py"


rule gather_prompts:
    input:
        prompts=each(EXPLAINED, "prompts.parquet"),
        summaries=each(EXPLAINED, "prompts.json"),
    output:
        **filled("results/{model}/comparison", prompts="prompts.parquet", layouts="layouts.json"),
    log:
        "logs/{model}/gather_prompts.log",
    benchmark:
        "benchmarks/{model}/gather_prompts.tsv"
    group:
        "prompts"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(1000, 10),
    params:
        code=library("scripts/gather_prompts.py"),
    message:
        "Gather the prompts of {wildcards.model}"
    script:
        "../scripts/gather_prompts.py"


rule score_clean:
    input:
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
    output:
        **filled("results/{model}/{task}", clean="clean.parquet", summary="clean_summary.parquet"),
    log:
        "logs/{model}/{task}/score_clean.log",
    benchmark:
        "benchmarks/{model}/{task}/score_clean.tsv"
    priority: DATA_FIRST
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 60, gpu=True),
    params:
        **STATISTICS,
        code=library("scripts/score_clean.py"),
        run=run_settings,
        filter=of_task("filter"),
        groups=config["ablation"]["groups"],
    message:
        "Score {wildcards.model} on {wildcards.task}"
    script:
        "../scripts/score_clean.py"


rule cache_activations:
    input:
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
        clean="results/{model}/{task}/clean.parquet",
    output:
        activations="results/{model}/{task}/activations.pt",
        means="results/{model}/{task}/means.pt",
    log:
        "logs/{model}/{task}/cache_activations.log",
    benchmark:
        "benchmarks/{model}/{task}/cache_activations.tsv"
    priority: DATA_FIRST
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 60, gpu=True),
    params:
        code=library("scripts/cache_activations.py"),
        run=run_settings,
        dtype=config["activations"]["dtype"],
        groups=config["ablation"]["groups"],
        allow_negative_clean=of_task("allow_negative_clean"),
        fit=fits_constants,
    message:
        "Cache activations of {wildcards.model} on {wildcards.task}"
    script:
        "../scripts/cache_activations.py"
