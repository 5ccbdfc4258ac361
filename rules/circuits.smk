# Component scores, node circuits, and what circuits share.


rule score_components:
    input:
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
        clean="results/{model}/{task}/clean.parquet",
        means="results/{model}/{task}/means.pt",
        activations="results/{model}/{task}/activations.pt",
    output:
        scores=ensure("results/{model}/{task}/component_scores.parquet", non_empty=True),
        effects=ensure("results/{model}/{task}/component_effects.parquet", non_empty=True),
    log:
        "logs/{model}/{task}/score_components.log",
    benchmark:
        "benchmarks/{model}/{task}/score_components.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
        gpu=gpu,
    params:
        code=library("scripts/score_components.py"),
        run=run_settings,
        memo=MEMO,
        kinds=config["scores"]["kinds"],
        metrics=config["scores"]["metrics"],
        bootstrap=config["statistics"]["bootstrap"],
        seed=config["statistics"]["seed"],
    message:
        "Ablate each component of {wildcards.model} on {wildcards.task}"
    script:
        "../scripts/score_components.py"


rule search_nodes:
    input:
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
        clean="results/{model}/{task}/clean.parquet",
        means="results/{model}/{task}/means.pt",
        activations="results/{model}/{task}/activations.pt",
    output:
        trace=ensure("results/{model}/{task}/trace.parquet", non_empty=True),
        circuits=ensure("results/{model}/{task}/circuits.json", non_empty=True),
        faithfulness=ensure("results/{model}/{task}/faithfulness.parquet", non_empty=True),
        survival=ensure("results/{model}/{task}/survival.parquet", non_empty=True),
    log:
        "logs/{model}/{task}/search_nodes.log",
    benchmark:
        "benchmarks/{model}/{task}/search_nodes.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=600,
        gpu=gpu,
    params:
        code=library("scripts/search_nodes.py"),
        run=run_settings,
        memo=MEMO,
        kind=config["ablation"]["kind"],
        thresholds=config["search"]["thresholds"],
        orders=settings.order_names(config["search"]["orders"]),
        relative_tolerance=config["search"]["relative_tolerance"],
        never_test=config["search"]["never_test"],
        visit=config["search"]["visit"],
        batch=config["search"]["batch"],
        legacy_mlp_means=config["search"]["legacy_mlp_means"],
        bootstrap=config["statistics"]["bootstrap"],
        seed=config["statistics"]["seed"],
    message:
        "Search circuits of {wildcards.model} for {wildcards.task}"
    script:
        "../scripts/search_nodes.py"


rule evaluate_circuits:
    input:
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
        clean="results/{model}/{task}/clean.parquet",
        means="results/{model}/{task}/means.pt",
        activations="results/{model}/{task}/activations.pt",
        circuits=main_task_table("circuits.json"),
    output:
        cross=ensure("results/{model}/{task}/cross.parquet", non_empty=True),
        controls=ensure("results/{model}/{task}/controls.parquet", non_empty=True),
        notes=ensure("results/{model}/{task}/control_notes.parquet", non_empty=True),
    log:
        "logs/{model}/{task}/evaluate_circuits.log",
    benchmark:
        "benchmarks/{model}/{task}/evaluate_circuits.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
        gpu=gpu,
    params:
        code=library("scripts/evaluate_circuits.py"),
        run=run_settings,
        memo=MEMO,
        kind=config["ablation"]["kind"],
        legacy_mlp_means=config["search"]["legacy_mlp_means"],
        order=config["comparison"]["order"],
        threshold=config["comparison"]["threshold"],
        controls=config["comparison"]["controls"],
        bootstrap=config["statistics"]["bootstrap"],
        seed=config["statistics"]["seed"],
    message:
        "Evaluate the circuits of {wildcards.model} on {wildcards.task}"
    script:
        "../scripts/evaluate_circuits.py"


rule compare_circuits:
    input:
        model="results/{model}/model.json",
        circuits=main_task_table("circuits.json"),
    output:
        membership=ensure("results/{model}/comparison/membership.parquet", non_empty=True),
        overlap=ensure("results/{model}/comparison/overlap.parquet", non_empty=True),
    log:
        "logs/{model}/compare_circuits.log",
    benchmark:
        "benchmarks/{model}/compare_circuits.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        code=library("scripts/compare_circuits.py"),
        order=config["comparison"]["order"],
        threshold=config["comparison"]["threshold"],
    message:
        "Compare the circuits of {wildcards.model}"
    script:
        "../scripts/compare_circuits.py"


rule gather_evaluations:
    input:
        cross=task_table("cross.parquet"),
        controls=task_table("controls.parquet"),
        notes=task_table("control_notes.parquet"),
    output:
        cross=ensure("results/{model}/comparison/cross.parquet", non_empty=True),
        controls=ensure("results/{model}/comparison/controls.parquet", non_empty=True),
        controls_summary=ensure("results/{model}/comparison/controls_summary.parquet", non_empty=True),
    log:
        "logs/{model}/gather_evaluations.log",
    benchmark:
        "benchmarks/{model}/gather_evaluations.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        code=library("scripts/gather_evaluations.py"),
    message:
        "Gather the evaluations of {wildcards.model} on every task"
    script:
        "../scripts/gather_evaluations.py"
