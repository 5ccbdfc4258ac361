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
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=gpu,
    params:
        code=library("scripts/score_components.py"),
        run=run_settings,
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
    log:
        "logs/{model}/{task}/search_nodes.log",
    benchmark:
        "benchmarks/{model}/{task}/search_nodes.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(600),
        gpu=gpu,
    params:
        code=library("scripts/search_nodes.py"),
        run=run_settings,
        allow_negative_clean=allow_negative_clean,
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


rule search_edges:
    input:
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
        clean="results/{model}/{task}/clean.parquet",
        means="results/{model}/{task}/means.pt",
        activations="results/{model}/{task}/activations.pt",
        circuits="results/{model}/{task}/circuits.json",
    output:
        scores=ensure("results/{model}/{task}/edge_scores.parquet", non_empty=True),
        trace=ensure("results/{model}/{task}/edge_trace.parquet", non_empty=True),
        circuits=ensure("results/{model}/{task}/edge_circuits.json", non_empty=True),
    log:
        "logs/{model}/{task}/search_edges.log",
    benchmark:
        "benchmarks/{model}/{task}/search_edges.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(600),
        gpu=gpu,
    params:
        code=library("scripts/search_edges.py"),
        run=run_settings,
        allow_negative_clean=allow_negative_clean,
        kind=config["ablation"]["kind"],
        order=config["comparison"]["order"],
        thresholds=config["search"]["thresholds"],
        methods=config["edges"]["methods"],
        start=config["edges"]["start"],
        start_threshold=config["edges"]["start_threshold"],
        threshold=config["edges"]["threshold"],
        taus=config["edges"]["taus"],
        change=config["edges"]["change"],
        points=config["edges"]["points"],
        rankings=config["edges"]["rankings"],
        path_patching=config["edges"]["path_patching"],
        drop_without_path=config["edges"]["drop_without_path"],
        bootstrap=config["statistics"]["bootstrap"],
        seed=config["statistics"]["seed"],
    message:
        "Search the edges of {wildcards.model} for {wildcards.task}"
    script:
        "../scripts/search_edges.py"


rule assess_circuits:
    input:
        unpack(edge_tables),
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
        prompts_info="results/{model}/{task}/prompts.json",
        clean="results/{model}/{task}/clean.parquet",
        means="results/{model}/{task}/means.pt",
        activations="results/{model}/{task}/activations.pt",
        circuits="results/{model}/{task}/circuits.json",
    output:
        **with_edges(edge_curves="edge_curves.parquet", edge_areas="edge_areas.parquet"),
        evaluation=ensure("results/{model}/{task}/evaluation.parquet", non_empty=True),
        completeness=ensure("results/{model}/{task}/completeness.parquet", non_empty=True),
        minimality=ensure("results/{model}/{task}/minimality.parquet", non_empty=True),
        positions=ensure("results/{model}/{task}/positions.parquet", non_empty=True),
    log:
        "logs/{model}/{task}/assess_circuits.log",
    benchmark:
        "benchmarks/{model}/{task}/assess_circuits.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(600),
        gpu=gpu,
    params:
        code=library("scripts/assess_circuits.py"),
        run=run_settings,
        allow_negative_clean=allow_negative_clean,
        kind=config["ablation"]["kind"],
        legacy_mlp_means=config["search"]["legacy_mlp_means"],
        order=config["comparison"]["order"],
        threshold=config["comparison"]["threshold"],
        prepend_bos=lambda wildcards: model_block(wildcards)["prepend_bos"],
        completeness=config["evaluation"]["completeness"],
        positions=config["evaluation"]["positions"],
        relative_tolerance=config["search"]["relative_tolerance"],
        never_test=config["search"]["never_test"],
        visit=config["search"]["visit"],
        batch=config["search"]["batch"],
        circuits=own_circuits,
        edges=bool(config["edges"]["methods"]),
        sizes=config["edges"]["sizes"],
        rankings=config["edges"]["rankings"],
        random_draws=config["edges"]["random_draws"],
        bootstrap=config["statistics"]["bootstrap"],
        seed=config["statistics"]["seed"],
    message:
        "Assess the circuits of {wildcards.model} for {wildcards.task}"
    script:
        "../scripts/assess_circuits.py"


rule search_stability:
    input:
        unpack(edge_tables),
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
        clean="results/{model}/{task}/clean.parquet",
        means="results/{model}/{task}/means.pt",
        activations="results/{model}/{task}/activations.pt",
        circuits="results/{model}/{task}/circuits.json",
    output:
        stability=ensure("results/{model}/{task}/stability.parquet", non_empty=True),
        summary=ensure("results/{model}/{task}/stability_summary.parquet", non_empty=True),
        circuits=ensure("results/{model}/{task}/stability.json", non_empty=True),
    log:
        "logs/{model}/{task}/search_stability.log",
    benchmark:
        "benchmarks/{model}/{task}/search_stability.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(600),
        gpu=gpu,
    params:
        code=library_of_task("scripts/search_stability.py"),
        run=run_settings,
        task=task_settings,
        prepend_bos=lambda wildcards: model_block(wildcards)["prepend_bos"],
        filter=lambda wildcards: settings.task_block(config, wildcards.task)["filter"],
        allow_negative_clean=allow_negative_clean,
        kind=config["ablation"]["kind"],
        legacy_mlp_means=config["search"]["legacy_mlp_means"],
        order=config["comparison"]["order"],
        order_seed=settings.order_names(config["search"]["orders"])[config["comparison"]["order"]],
        threshold=config["comparison"]["threshold"],
        relative_tolerance=config["search"]["relative_tolerance"],
        never_test=config["search"]["never_test"],
        visit=config["search"]["visit"],
        batch=config["search"]["batch"],
        resamples=config["stability"],
        edges=config["stability"]["edges"] if config["edges"]["methods"] else None,
        points=config["edges"]["points"],
        ranking=config["edges"]["rankings"][0],
        seed=config["statistics"]["seed"],
    message:
        "Search the circuit of {wildcards.model} for {wildcards.task} on other data"
    script:
        "../scripts/search_stability.py"


rule export_circuits:
    input:
        unpack(edge_tables),
        model="results/{model}/model.json",
        circuits="results/{model}/{task}/circuits.json",
    output:
        study=ensure("results/{model}/{task}/circuit.study.json", non_empty=True),
        graph=ensure("results/{model}/{task}/circuit.graph.json", non_empty=True),
    log:
        "logs/{model}/{task}/export_circuits.log",
    benchmark:
        "benchmarks/{model}/{task}/export_circuits.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/export_circuits.py"),
        order=config["comparison"]["order"],
        threshold=config["comparison"]["threshold"],
        edges=bool(config["edges"]["methods"]),
    message:
        "Export the circuit of {wildcards.model} for {wildcards.task}"
    script:
        "../scripts/export_circuits.py"


rule gather_circuits:
    input:
        circuits=main_task_table("circuits.json"),
    output:
        ensure("results/{model}/comparison/circuits.json", non_empty=True),
    log:
        "logs/{model}/gather_circuits.log",
    benchmark:
        "benchmarks/{model}/gather_circuits.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/gather_circuits.py"),
        order=config["comparison"]["order"],
        threshold=config["comparison"]["threshold"],
    message:
        "Gather the circuits of {wildcards.model}"
    script:
        "../scripts/gather_circuits.py"


rule evaluate_circuits:
    input:
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
        clean="results/{model}/{task}/clean.parquet",
        means="results/{model}/{task}/means.pt",
        activations="results/{model}/{task}/activations.pt",
        circuits="results/{model}/comparison/circuits.json",
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
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=gpu,
    params:
        code=library("scripts/evaluate_circuits.py"),
        run=run_settings,
        allow_negative_clean=allow_negative_clean,
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
        unpack(all_edge_tables),
        model="results/{model}/model.json",
        chosen="results/{model}/comparison/circuits.json",
        circuits=main_task_table("circuits.json"),
    output:
        membership=ensure("results/{model}/comparison/membership.parquet", non_empty=True),
        edge_membership=ensure("results/{model}/comparison/edge_membership.parquet", non_empty=True),
        overlap=ensure("results/{model}/comparison/overlap.parquet", non_empty=True),
        typology=ensure("results/{model}/comparison/typology.parquet", non_empty=True),
        methods=ensure("results/{model}/comparison/methods.parquet", non_empty=True),
        agreement=ensure("results/{model}/comparison/agreement.parquet", non_empty=True),
    log:
        "logs/{model}/compare_circuits.log",
    benchmark:
        "benchmarks/{model}/compare_circuits.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=library("scripts/compare_circuits.py"),
        order=config["comparison"]["order"],
        threshold=config["comparison"]["threshold"],
        same=config["comparison"]["typology"]["same"],
        alpha=config["comparison"]["typology"]["alpha"],
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
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=library("scripts/gather_evaluations.py"),
    message:
        "Gather the evaluations of {wildcards.model} on every task"
    script:
        "../scripts/gather_evaluations.py"


rule compare_models:
    input:
        models=expand("results/{model}/model.json", model=MODELS),
        circuits=expand("results/{model}/{task}/circuits.json", model=MODELS, task=MAIN_TASKS),
        edge_circuits=expand(
            "results/{model}/{task}/edge_circuits.json",
            model=MODELS,
            task=MAIN_TASKS if config["edges"]["methods"] else [],
        ),
    output:
        overlap=ensure("results/comparison/models.parquet", non_empty=True),
    log:
        "logs/compare_models.log",
    benchmark:
        "benchmarks/compare_models.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=library("scripts/compare_models.py"),
        order=config["comparison"]["order"],
        threshold=config["comparison"]["threshold"],
    message:
        "Compare the circuits of each task between models"
    script:
        "../scripts/compare_models.py"
