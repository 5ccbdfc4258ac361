# Models and prompts, and what a model does on them unharmed.


rule build_random_model:
    input:
        architecture=architecture_file,
    output:
        directory("results/{model}/checkpoint"),
    log:
        "logs/{model}/build_random_model.log",
    benchmark:
        "benchmarks/{model}/build_random_model.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(16000),
        runtime=growing(60),
    params:
        code=library("scripts/build_random_model.py"),
        block=random_source,
        root=str(ROOT),
        seed=config["statistics"]["seed"],
    message:
        "Build {wildcards.model}"
    script:
        "../scripts/build_random_model.py"


rule check_model:
    input:
        model_files,
    output:
        "results/{model}/model.json",
    log:
        "logs/{model}/check_model.log",
    benchmark:
        "benchmarks/{model}/check_model.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=gpu,
    params:
        code=library("scripts/check_model.py"),
        source=model_source,
        device=lambda wildcards: model_block(wildcards)["device"],
        dtype=lambda wildcards: model_block(wildcards)["dtype"],
        random_weights=RANDOM,
        root=str(ROOT),
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
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=gpu,
    params:
        code=library("scripts/check_analyses.py"),
        run=run_settings,
        heads=ANALYSES,
        edges=bool(config["edges"]["methods"]),
    message:
        "Check what can be found out about {wildcards.model}"
    script:
        "../scripts/check_analyses.py"


# No job but the one above reads analyses.json. Those that nothing else holds back wait for it, so that a study which
# its model cannot be served ends there; `ancient`, since another list of analyses makes no other prompts.
rule make_prompts:
    input:
        ancient("results/{model}/analyses.json"),
        files=task_files,
        model="results/{model}/model.json",
    output:
        prompts=ensure("results/{model}/{task}/prompts.parquet", non_empty=True),
        summary=ensure("results/{model}/{task}/prompts.json", non_empty=True),
        tokens=ensure("results/{model}/{task}/tokens.parquet", non_empty=True),
    log:
        "logs/{model}/{task}/make_prompts.log",
    benchmark:
        "benchmarks/{model}/{task}/make_prompts.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=library("scripts/make_prompts.py"),
        task=task_settings,
        prepend_bos=lambda wildcards: model_block(wildcards)["prepend_bos"],
        root=str(ROOT),
    message:
        "Make prompts of {wildcards.task} for {wildcards.model}"
    script:
        "../scripts/make_prompts.py"


rule gather_prompts:
    input:
        prompts=explained_table("prompts.parquet"),
        summaries=explained_table("prompts.json"),
    output:
        prompts=ensure("results/{model}/comparison/prompts.parquet", non_empty=True),
        layouts=ensure("results/{model}/comparison/layouts.json", non_empty=True),
    log:
        "logs/{model}/gather_prompts.log",
    benchmark:
        "benchmarks/{model}/gather_prompts.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/gather_prompts.py"),
    message:
        "Gather the prompts of {wildcards.model}"
    script:
        "../scripts/gather_prompts.py"


rule cache_activations:
    input:
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
    output:
        activations="results/{model}/{task}/activations.pt",
        means="results/{model}/{task}/means.pt",
        clean=ensure("results/{model}/{task}/clean.parquet", non_empty=True),
        summary=ensure("results/{model}/{task}/clean_summary.parquet", non_empty=True),
    log:
        "logs/{model}/{task}/cache_activations.log",
    benchmark:
        "benchmarks/{model}/{task}/cache_activations.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=gpu,
    params:
        code=library("scripts/cache_activations.py"),
        run=run_settings,
        dtype=config["activations"]["dtype"],
        groups=config["ablation"]["groups"],
        filter=lambda wildcards: settings.task_block(config, wildcards.task)["filter"],
        allow_negative_clean=allow_negative_clean,
        bootstrap=config["statistics"]["bootstrap"],
        seed=config["statistics"]["seed"],
    message:
        "Cache activations of {wildcards.model} on {wildcards.task}"
    script:
        "../scripts/cache_activations.py"
