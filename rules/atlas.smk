# The atlas page: what happens on single prompts, and one file with everything, for each model and for all of a study.

IN_TRACES = [name for name in ("attention", "attribution", "lens") if name in ANALYSES]


rule trace_prompts:
    input:
        unpack(scores_of_components),
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
        layout="results/{model}/{task}/prompts.json",
        clean="results/{model}/{task}/clean.parquet",
        circuits="results/{model}/comparison/circuits.json",
        effects=each(MAIN, "component_effects.parquet"),
    output:
        **filled("results/{model}/{task}", traces="traces.json"),
    log:
        "logs/{model}/{task}/trace_prompts.log",
    benchmark:
        "benchmarks/{model}/{task}/trace_prompts.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 30, gpu=True),
    params:
        code=library("scripts/trace_prompts.py"),
        run=run_settings,
        analyses=IN_TRACES,
        kind=config["ablation"]["kind"],
        prompts=config["atlas"]["prompts"],
        heads=config["atlas"]["heads"],
    message:
        "Follow some prompts of {wildcards.task} through {wildcards.model}"
    script:
        "../scripts/trace_prompts.py"


rule write_atlas:
    input:
        unpack(atlas_tables),
    output:
        page=atlas_in_report(atlas_page("{model}"), "{model}"),
    log:
        "logs/{model}/write_atlas.log",
    benchmark:
        "benchmarks/{model}/write_atlas.tsv"
    group:
        "figures"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(2000, 10),
    params:
        **SHOWN_IN_ATLAS,
        models=lambda wildcards: [wildcards.model],
    message:
        "Write the atlas page of {wildcards.model}"
    script:
        "../scripts/write_atlas.py"


rule write_atlas_of_models:
    input:
        unpack(atlas_tables),
        between="results/comparison/models.parquet",
    output:
        page=atlas_in_report("results/atlas.html", "all"),
    log:
        "logs/write_atlas_of_models.log",
    benchmark:
        "benchmarks/write_atlas_of_models.tsv"
    group:
        "figures"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 10),
    params:
        **SHOWN_IN_ATLAS,
        models=MODELS,
    message:
        "Write one atlas page of {params.models}"
    script:
        "../scripts/write_atlas.py"


rule write_first_page:
    input:
        unpack(first_tables),
    output:
        page="results/{model}/first.html",
    log:
        "logs/{model}/write_first_page.log",
    benchmark:
        "benchmarks/{model}/write_first_page.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(1000, 10),
    params:
        **{name: value for name, value in SHOWN_IN_ATLAS.items() if name not in ("code", "tasks")},
        code=library("scripts/write_first_page.py", *PARTS_OF_ATLAS),
        task=MAIN_TASKS[0],
    message:
        "Write the first page of {wildcards.model}"
    script:
        "../scripts/write_first_page.py"


rule quick:
    input:
        page=f"results/{MODELS[0]}/first.html",
    log:
        "logs/quick.log",
    localrule: True
    conda:
        "../envs/environment.yaml"
    message:
        "The first circuit: {input.page}"
    shell:
        "echo 'Open {input.page}; the same command without quick finishes the study from here' | tee {log}"
