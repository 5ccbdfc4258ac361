# Component scores, node circuits, and what circuits share.


rule score_components:
    input:
        **computed_from(),
    output:
        **filled(
            "results/{model}/{task}",
            scores="component_scores.parquet",
            effects="component_effects.parquet",
            attribution="node_attribution.parquet",
            accuracy="node_accuracy.parquet",
        ),
    log:
        "logs/{model}/{task}/score_components.log",
    benchmark:
        "benchmarks/{model}/{task}/score_components.tsv"
    priority: ALONE_FIRST
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 120, gpu=True),
    params:
        **STATISTICS,
        code=library("scripts/score_components.py"),
        run=run_settings,
        kinds=config["scores"]["kinds"],
        metrics=config["scores"]["metrics"],
        attribution=config["scores"]["attribution"],
        points=config["scores"]["points"],
    message:
        "Ablate each component of {wildcards.model} on {wildcards.task}"
    script:
        "../scripts/score_components.py"


rule search_nodes:
    input:
        **computed_from(),
    output:
        **filled(
            "results/{model}/{task}",
            trace="trace.parquet",
            circuits="circuits.json",
            faithfulness="faithfulness.parquet",
        ),
    log:
        "logs/{model}/{task}/search_nodes.log",
    benchmark:
        "benchmarks/{model}/{task}/search_nodes.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 600, gpu=True),
    params:
        **CANDIDATES,
        **STATISTICS,
        code=library("scripts/search_nodes.py"),
        run=run_settings,
        allow_negative_clean=of_task("allow_negative_clean"),
        kind=config["ablation"]["kind"],
        thresholds=config["search"]["thresholds"],
        orders=settings.order_names(config["search"]["orders"]),
        points=config["scores"]["points"],
        legacy_mlp_means=config["search"]["legacy_mlp_means"],
    message:
        "Search circuits of {wildcards.model} for {wildcards.task}"
    script:
        "../scripts/search_nodes.py"


rule choose_circuit:
    input:
        **computed_from(circuits="circuits.json"),
    output:
        **filled("results/{model}/{task}", choice="choice.parquet", chosen="chosen.json"),
    log:
        "logs/{model}/{task}/choose_circuit.log",
    benchmark:
        "benchmarks/{model}/{task}/choose_circuit.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 120, gpu=True),
    params:
        **CANDIDATES,
        **STATISTICS,
        code=library("scripts/choose_circuit.py"),
        run=run_settings,
        allow_negative_clean=of_task("allow_negative_clean"),
        kind=config["ablation"]["kind"],
        legacy_mlp_means=config["search"]["legacy_mlp_means"],
        fixed_order=settings.fixed_order(config),
    message:
        "Choose the circuit of {wildcards.model} for {wildcards.task} that is reported"
    script:
        "../scripts/choose_circuit.py"


rule search_edges:
    input:
        **computed_from(chosen="chosen.json"),
    output:
        **filled(
            "results/{model}/{task}",
            scores="edge_scores.parquet",
            accuracy="edge_accuracy.parquet",
            trace="edge_trace.parquet",
            choice="edge_choice.parquet",
            circuits="edge_circuits.json",
        ),
    log:
        "logs/{model}/{task}/search_edges.log",
    benchmark:
        "benchmarks/{model}/{task}/search_edges.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 600, gpu=True),
    params:
        **STATISTICS,
        code=library("scripts/search_edges.py"),
        run=run_settings,
        allow_negative_clean=of_task("allow_negative_clean"),
        kind=config["ablation"]["kind"],
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
        choice=config["edges"]["choice"],
    message:
        "Search the edges of {wildcards.model} for {wildcards.task}"
    script:
        "../scripts/search_edges.py"


rule score_edge_roles:
    input:
        **computed_from(prompts_info="prompts.json", edge_circuits="edge_circuits.json"),
    output:
        **filled("results/{model}/{task}", roles="edge_roles.parquet"),
    log:
        "logs/{model}/{task}/score_edge_roles.log",
    benchmark:
        "benchmarks/{model}/{task}/score_edge_roles.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 120, gpu=True),
    params:
        **STATISTICS,
        code=library("scripts/score_edge_roles.py"),
        run=run_settings,
        kind=config["ablation"]["kind"],
        method=config["edges"]["roles"]["method"] or "",
        exact=config["edges"]["roles"]["exact"],
        points=config["edges"]["points"],
    message:
        "Score edges of {wildcards.model} for {wildcards.task} by roles of positions"
    script:
        "../scripts/score_edge_roles.py"


CURVES = {name: f"{name}.parquet" for name in ("edge_curves", "edge_areas")}  # where edges are searched


rule assess_circuits:
    input:
        unpack(edge_tables),
        **computed_from(prompts_info="prompts.json", chosen="chosen.json"),
    output:
        **(filled("results/{model}/{task}", **CURVES) if WITH_EDGES else {}),
        **filled(
            "results/{model}/{task}",
            evaluation="evaluation.parquet",
            completeness="completeness.parquet",
            minimality="minimality.parquet",
            positions="positions.parquet",
        ),
    log:
        "logs/{model}/{task}/assess_circuits.log",
    benchmark:
        "benchmarks/{model}/{task}/assess_circuits.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 600, gpu=True),
    params:
        **REPORTED,
        **CANDIDATES,
        **STATISTICS,
        code=library("scripts/assess_circuits.py"),
        run=run_settings,
        allow_negative_clean=of_task("allow_negative_clean"),
        kind=config["ablation"]["kind"],
        legacy_mlp_means=config["search"]["legacy_mlp_means"],
        completeness=config["evaluation"]["completeness"],
        positions=config["evaluation"]["positions"],
        circuits=own_circuits_of_task,
        edges=WITH_EDGES,
        sizes=config["edges"]["sizes"],
        rankings=config["edges"]["rankings"],
        random_draws=config["edges"]["random_draws"],
    message:
        "Assess the circuits of {wildcards.model} for {wildcards.task}"
    script:
        "../scripts/assess_circuits.py"


rule search_stability:
    input:
        unpack(edge_tables),
        **computed_from(circuits="circuits.json", chosen="chosen.json"),
    output:
        **filled(
            "results/{model}/{task}",
            stability="stability.parquet",
            summary="stability_summary.parquet",
            circuits="stability.json",
        ),
    log:
        "logs/{model}/{task}/search_stability.log",
    benchmark:
        "benchmarks/{model}/{task}/search_stability.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 600, gpu=True),
    params:
        **CANDIDATES,
        code=library_of_task("scripts/search_stability.py"),
        run=run_settings,
        task=task_settings,
        prepend_bos=prepend_bos,
        filter=of_task("filter"),
        allow_negative_clean=of_task("allow_negative_clean"),
        kind=config["ablation"]["kind"],
        legacy_mlp_means=config["search"]["legacy_mlp_means"],
        orders=settings.order_names(config["search"]["orders"]),
        threshold=config["comparison"]["threshold"],
        resamples=config["stability"],
        edges=config["stability"]["edges"] if WITH_EDGES else None,
        points=config["edges"]["points"],
        node_points=config["scores"]["points"],
        ranking=config["edges"]["rankings"][0],
        seed=config["statistics"]["seed"],
    message:
        "Search the circuit of {wildcards.model} for {wildcards.task} on other data"
    script:
        "../scripts/search_stability.py"


rule gather_consensus:
    input:
        model="results/{model}/model.json",
        stability=each(MAIN, "stability.json"),
    output:
        **filled(
            "results/{model}/comparison",
            circuits="consensus.json",
            consensus="consensus.parquet",
            edges="consensus_edges.parquet",
            shared="shared.parquet",
            members="shared_members.parquet",
        ),
    log:
        "logs/{model}/gather_consensus.log",
    benchmark:
        "benchmarks/{model}/gather_consensus.tsv"
    group:
        "tables"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(2000, 20),
    params:
        code=library("scripts/gather_consensus.py"),
        threshold=config["comparison"]["threshold"],
    message:
        "Gather what the searches of {wildcards.model} agree on"
    script:
        "../scripts/gather_consensus.py"


rule evaluate_consensus:
    input:
        **computed_from(),
        circuits="results/{model}/comparison/consensus.json",
    output:
        **filled(
            "results/{model}/{task}",
            scores="consensus_scores.parquet",
            controls="consensus_controls.parquet",
            tests="consensus_tests.parquet",
        ),
    log:
        "logs/{model}/{task}/evaluate_consensus.log",
    benchmark:
        "benchmarks/{model}/{task}/evaluate_consensus.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 120, gpu=True),
    params:
        **STATISTICS,
        code=library("scripts/evaluate_consensus.py"),
        run=run_settings,
        allow_negative_clean=of_task("allow_negative_clean"),
        kind=config["ablation"]["kind"],
        legacy_mlp_means=config["search"]["legacy_mlp_means"],
        controls=config["comparison"]["controls"],
        edge_controls=config["trust"]["controls"],
    message:
        "Evaluate what the searches of {wildcards.model} agree on, on {wildcards.task}"
    script:
        "../scripts/evaluate_consensus.py"


rule export_circuits:
    input:
        unpack(edge_tables),
        model="results/{model}/model.json",
        chosen="results/{model}/{task}/chosen.json",
        tokens="results/{model}/{task}/tokens.parquet",
        clean="results/{model}/{task}/clean.parquet",
    output:
        **filled("results/{model}/{task}", **EXPORTED),
    log:
        "logs/{model}/{task}/export_circuits.log",
    benchmark:
        "benchmarks/{model}/{task}/export_circuits.tsv"
    group:
        "tables"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(1000, 10),
    params:
        **REPORTED,
        code=library("scripts/export_circuits.py"),
        edges=WITH_EDGES,
    message:
        "Export the circuit of {wildcards.model} for {wildcards.task}"
    script:
        "../scripts/export_circuits.py"


rule gather_circuits:
    input:
        chosen=each(MAIN, "chosen.json"),
    output:
        ensure("results/{model}/comparison/circuits.json", non_empty=True),
    log:
        "logs/{model}/gather_circuits.log",
    benchmark:
        "benchmarks/{model}/gather_circuits.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(1000, 10),
    params:
        **REPORTED,
        code=library("scripts/gather_circuits.py"),
    message:
        "Gather the circuits of {wildcards.model}"
    script:
        "../scripts/gather_circuits.py"


rule evaluate_circuits:
    input:
        **computed_from(),
        circuits="results/{model}/comparison/circuits.json",
    output:
        **filled(
            "results/{model}/{task}",
            cross="cross.parquet",
            controls="controls.parquet",
            notes="control_notes.parquet",
        ),
    log:
        "logs/{model}/{task}/evaluate_circuits.log",
    benchmark:
        "benchmarks/{model}/{task}/evaluate_circuits.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 120, gpu=True),
    params:
        **REPORTED,
        **STATISTICS,
        code=library("scripts/evaluate_circuits.py"),
        run=run_settings,
        allow_negative_clean=of_task("allow_negative_clean"),
        kind=config["ablation"]["kind"],
        legacy_mlp_means=config["search"]["legacy_mlp_means"],
        controls=config["comparison"]["controls"],
    message:
        "Evaluate the circuits of {wildcards.model} on {wildcards.task}"
    script:
        "../scripts/evaluate_circuits.py"


rule compare_circuits:
    input:
        unpack(all_edge_tables),
        model="results/{model}/model.json",
        chosen="results/{model}/comparison/circuits.json",
        circuits=each(MAIN, "circuits.json"),
    output:
        **filled(
            "results/{model}/comparison",
            membership="membership.parquet",
            edge_membership="edge_membership.parquet",
            overlap="overlap.parquet",
            typology="typology.parquet",
            methods="methods.parquet",
            agreement="agreement.parquet",
        ),
    log:
        "logs/{model}/compare_circuits.log",
    benchmark:
        "benchmarks/{model}/compare_circuits.tsv"
    group:
        "tables"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(2000, 20),
    params:
        **REPORTED,
        code=library("scripts/compare_circuits.py"),
        same=config["comparison"]["typology"]["same"],
        alpha=config["comparison"]["typology"]["alpha"],
    message:
        "Compare the circuits of {wildcards.model}"
    script:
        "../scripts/compare_circuits.py"


rule compose_heads:
    input:
        model="results/{model}/model.json",
        circuits="results/{model}/comparison/circuits.json",
        edge_membership="results/{model}/comparison/edge_membership.parquet",
    output:
        **filled(
            "results/{model}/comparison",
            composition="composition.parquet",
            composition_edges="composition_edges.parquet",
        ),
    log:
        "logs/{model}/compose_heads.log",
    benchmark:
        "benchmarks/{model}/compose_heads.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 60, gpu=True),
    params:
        **REPORTED,
        code=library("scripts/compose_heads.py"),
        run=run_settings,
        main_tasks=MAIN_TASKS,
        seed=config["statistics"]["seed"],
    message:
        "Score how heads of {wildcards.model} compose"
    script:
        "../scripts/compose_heads.py"


rule gather_evaluations:
    input:
        cross=each(TASK, "cross.parquet"),
        controls=each(TASK, "controls.parquet"),
        notes=each(TASK, "control_notes.parquet"),
    output:
        **filled(
            "results/{model}/comparison",
            cross="cross.parquet",
            controls="controls.parquet",
            controls_summary="controls_summary.parquet",
        ),
    log:
        "logs/{model}/gather_evaluations.log",
    benchmark:
        "benchmarks/{model}/gather_evaluations.tsv"
    group:
        "tables"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(2000, 20),
    params:
        code=library("scripts/gather_evaluations.py"),
    message:
        "Gather the evaluations of {wildcards.model} on every task"
    script:
        "../scripts/gather_evaluations.py"


rule compare_models:
    input:
        models=expand("results/{model}/model.json", model=MODELS),
        circuits=expand("results/{model}/{task}/chosen.json", model=MODELS, task=MAIN_TASKS),
        edge_circuits=expand(
            "results/{model}/{task}/edge_circuits.json",
            model=MODELS,
            task=MAIN_TASKS if WITH_EDGES else [],
        ),
    output:
        **filled("results/comparison", overlap="models.parquet"),
    log:
        "logs/compare_models.log",
    benchmark:
        "benchmarks/compare_models.tsv"
    group:
        "tables"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(2000, 20),
    params:
        **REPORTED,
        code=library("scripts/compare_models.py"),
    message:
        "Compare the circuits of each task between models"
    script:
        "../scripts/compare_models.py"
