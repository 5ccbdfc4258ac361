# Figures and summary pages: from tables only. A rule takes just the settings that its figure shows.


rule write_data_page:
    input:
        model="results/{model}/model.json",
        prompts=task_table("prompts.parquet"),
        info=task_table("prompts.json"),
        rejected=task_table("rejected.parquet"),
        tokens=task_table("tokens.parquet"),
        clean=task_table("clean.parquet"),
    output:
        table=ensure("results/{model}/data_check.parquet", non_empty=True),
        digest=ensure("results/{model}/data_check.txt", non_empty=True),
        page=report(
            "results/figures/{model}/{model}.data.html",
            caption="../report/data.rst",
            category="1 Data",
            labels={"model": "{model}", "task": "all", "figure": "a look at the data"},
        ),
    log:
        "logs/{model}/write_data_page.log",
    benchmark:
        "benchmarks/{model}/write_data_page.tsv"
    priority: DATA_FIRST
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/write_data_page.py"),
        title=config["study"]["title"],
        main_tasks=MAIN_TASKS,
        tasks=data_settings(),
        groups=config["ablation"]["groups"],
        bootstrap=config["statistics"]["bootstrap"],
        seed=config["statistics"]["seed"],
    message:
        "Look at the data of {wildcards.model}"
    script:
        "../scripts/write_data_page.py"


rule check_data:
    input:
        digests=expand("results/{model}/data_check.txt", model=MODELS),
        pages=expand("results/figures/{model}/{model}.data.html", model=MODELS),
    log:
        "logs/check_data.log",
    localrule: True
    conda:
        "../envs/environment.yaml"
    threads: 1
    message:
        "The pages with every example: {input.pages}"
    shell:
        "cat {input.digests} | tee {log}"


rule plot_dataset:
    input:
        prompts="results/{model}/{task}/prompts.parquet",
        info="results/{model}/{task}/prompts.json",
        tokens="results/{model}/{task}/tokens.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.{task}.dataset.svg",
            caption="../report/dataset.rst",
            category="1 Data",
            labels={"model": "{model}", "task": "{task}", "figure": "prompts"},
        ),
        png="results/figures/{model}/{model}.{task}.dataset.png",
        tokens_svg=report(
            "results/figures/{model}/{model}.{task}.tokens.svg",
            caption="../report/tokens.rst",
            category="1 Data",
            labels={"model": "{model}", "task": "{task}", "figure": "tokens"},
        ),
        tokens_png="results/figures/{model}/{model}.{task}.tokens.png",
    log:
        "logs/{model}/{task}/plot_dataset.log",
    benchmark:
        "benchmarks/{model}/{task}/plot_dataset.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_dataset.py"),
        clean=config["figures"]["clean"],
        corrupted=config["figures"]["corrupted"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw prompts of {wildcards.task} for {wildcards.model}"
    script:
        "../scripts/plot_dataset.py"


rule plot_clean_accuracy:
    input:
        summaries=task_table("clean_summary.parquet"),
    output:
        svg=report(
            "results/figures/{model}/{model}.clean_accuracy.svg",
            caption="../report/clean_accuracy.rst",
            category="1 Data",
            labels={"model": "{model}", "task": "all", "figure": "clean accuracy"},
        ),
        png="results/figures/{model}/{model}.clean_accuracy.png",
    log:
        "logs/{model}/plot_clean_accuracy.log",
    benchmark:
        "benchmarks/{model}/plot_clean_accuracy.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_clean_accuracy.py"),
        tasks=ALL_TASKS,
        main_tasks=MAIN_TASKS,
        clean=config["figures"]["clean"],
        corrupted=config["figures"]["corrupted"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw clean accuracy of {wildcards.model}"
    script:
        "../scripts/plot_clean_accuracy.py"


rule plot_component_effects:
    input:
        effects="results/{model}/{task}/component_effects.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.{task}.component_effects.svg",
            caption="../report/component_effects.rst",
            category="3 Components",
            labels={
                "model": "{model}",
                "task": "{task}",
                "figure": "component effects",
            },
        ),
        png="results/figures/{model}/{model}.{task}.component_effects.png",
    log:
        "logs/{model}/{task}/plot_component_effects.log",
    benchmark:
        "benchmarks/{model}/{task}/plot_component_effects.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_component_effects.py"),
        kind=config["ablation"]["kind"],
        diverging=config["figures"]["diverging"],
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw component effects of {wildcards.model} on {wildcards.task}"
    script:
        "../scripts/plot_component_effects.py"


rule plot_search_trajectory:
    input:
        trace="results/{model}/{task}/trace.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.{task}.search_trajectory.svg",
            caption="../report/search_trajectory.rst",
            category="4 Circuits",
            labels={
                "model": "{model}",
                "task": "{task}",
                "figure": "search trajectory",
            },
        ),
        png="results/figures/{model}/{model}.{task}.search_trajectory.png",
    log:
        "logs/{model}/{task}/plot_search_trajectory.log",
    benchmark:
        "benchmarks/{model}/{task}/plot_search_trajectory.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_search_trajectory.py"),
        orders=[config["comparison"]["order"]],
        clean=config["figures"]["clean"],
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw the search of {wildcards.model} on {wildcards.task}"
    script:
        "../scripts/plot_search_trajectory.py"


rule plot_circuit_size:
    input:
        faithfulness=main_task_table("faithfulness.parquet"),
    output:
        svg=report(
            "results/figures/{model}/{model}.circuit_size.svg",
            caption="../report/circuit_size.rst",
            category="4 Circuits",
            labels={"model": "{model}", "task": "all", "figure": "size and score"},
        ),
        png="results/figures/{model}/{model}.circuit_size.png",
    log:
        "logs/{model}/plot_circuit_size.log",
    benchmark:
        "benchmarks/{model}/plot_circuit_size.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_circuit_size.py"),
        main_tasks=MAIN_TASKS,
        sequential=config["figures"]["sequential"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw circuit sizes of {wildcards.model}"
    script:
        "../scripts/plot_circuit_size.py"


rule plot_circuit_diagram:
    input:
        membership="results/{model}/comparison/membership.parquet",
        effects=circuit_effects,
    output:
        svg=report(
            "results/figures/{model}/{model}.{circuit}.circuit_diagram.svg",
            caption="../report/circuit_diagram.rst",
            category="4 Circuits",
            labels={"model": "{model}", "task": "{circuit}", "figure": "circuit"},
        ),
        png="results/figures/{model}/{model}.{circuit}.circuit_diagram.png",
    log:
        "logs/{model}/{circuit}/plot_circuit_diagram.log",
    benchmark:
        "benchmarks/{model}/{circuit}/plot_circuit_diagram.tsv"
    wildcard_constraints:
        circuit="|".join(map(re.escape, [*MAIN_TASKS, "shared"])),
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_circuit_diagram.py"),
        main_tasks=MAIN_TASKS,
        kind=config["ablation"]["kind"],
        clean=config["figures"]["clean"],
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw circuit {wildcards.circuit} of {wildcards.model}"
    script:
        "../scripts/plot_circuit_diagram.py"


rule plot_positions:
    input:
        positions=main_task_table("positions.parquet"),
    output:
        svg=report(
            "results/figures/{model}/{model}.positions.svg",
            caption="../report/positions.rst",
            category="4 Circuits",
            labels={"model": "{model}", "task": "all", "figure": "positions"},
        ),
        png="results/figures/{model}/{model}.positions.png",
    log:
        "logs/{model}/plot_positions.log",
    benchmark:
        "benchmarks/{model}/plot_positions.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_positions.py"),
        main_tasks=MAIN_TASKS,
        diverging=config["figures"]["diverging"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw positions of components of {wildcards.model}"
    script:
        "../scripts/plot_positions.py"


rule plot_edge_diagram:
    input:
        model="results/{model}/model.json",
        membership="results/{model}/comparison/edge_membership.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.{circuit}.edge_diagram.svg",
            caption="../report/edge_diagram.rst",
            category="5 Edges",
            labels={"model": "{model}", "task": "{circuit}", "figure": "edge circuit"},
        ),
        png="results/figures/{model}/{model}.{circuit}.edge_diagram.png",
    log:
        "logs/{model}/{circuit}/plot_edge_diagram.log",
    benchmark:
        "benchmarks/{model}/{circuit}/plot_edge_diagram.tsv"
    wildcard_constraints:
        circuit="|".join(map(re.escape, [*MAIN_TASKS, "shared"])),
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_edge_diagram.py"),
        main_tasks=MAIN_TASKS,
        method=edge_score_method(),
        clean=config["figures"]["clean"],
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw edge circuit {wildcards.circuit} of {wildcards.model}"
    script:
        "../scripts/plot_edge_diagram.py"


rule plot_edge_curves:
    input:
        curves=main_task_table("edge_curves.parquet"),
        areas=main_task_table("edge_areas.parquet"),
    output:
        svg=report(
            "results/figures/{model}/{model}.edge_curves.svg",
            caption="../report/edge_curves.rst",
            category="5 Edges",
            labels={"model": "{model}", "task": "all", "figure": "size and faithfulness"},
        ),
        png="results/figures/{model}/{model}.edge_curves.png",
    log:
        "logs/{model}/plot_edge_curves.log",
    benchmark:
        "benchmarks/{model}/plot_edge_curves.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_edge_curves.py"),
        main_tasks=MAIN_TASKS,
        clean=config["figures"]["clean"],
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw edge circuits of every size of {wildcards.model}"
    script:
        "../scripts/plot_edge_curves.py"


rule plot_evaluation:
    input:
        evaluation=main_task_table("evaluation.parquet"),
        completeness=main_task_table("completeness.parquet"),
        minimality=main_task_table("minimality.parquet"),
    output:
        svg=report(
            "results/figures/{model}/{model}.evaluation.svg",
            caption="../report/evaluation.rst",
            category="6 Evaluation",
            labels={"model": "{model}", "task": "all", "figure": "metrics, completeness, minimality"},
        ),
        png="results/figures/{model}/{model}.evaluation.png",
    log:
        "logs/{model}/plot_evaluation.log",
    benchmark:
        "benchmarks/{model}/plot_evaluation.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_evaluation.py"),
        main_tasks=MAIN_TASKS,
        clean=config["figures"]["clean"],
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw the evaluation of {wildcards.model}"
    script:
        "../scripts/plot_evaluation.py"


rule plot_controls:
    input:
        controls="results/{model}/comparison/controls.parquet",
        summary="results/{model}/comparison/controls_summary.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.controls.svg",
            caption="../report/controls.rst",
            category="6 Evaluation",
            labels={"model": "{model}", "task": "all", "figure": "random controls"},
        ),
        png="results/figures/{model}/{model}.controls.png",
    log:
        "logs/{model}/plot_controls.log",
    benchmark:
        "benchmarks/{model}/plot_controls.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_controls.py"),
        tasks=ALL_TASKS,
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw random controls of {wildcards.model}"
    script:
        "../scripts/plot_controls.py"


rule plot_stability:
    input:
        stability=main_task_table("stability.parquet"),
        summary=main_task_table("stability_summary.parquet"),
    output:
        svg=report(
            "results/figures/{model}/{model}.stability.svg",
            caption="../report/stability.rst",
            category="6 Evaluation",
            labels={"model": "{model}", "task": "all", "figure": "stability"},
        ),
        png="results/figures/{model}/{model}.stability.png",
    log:
        "logs/{model}/plot_stability.log",
    benchmark:
        "benchmarks/{model}/plot_stability.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_stability.py"),
        main_tasks=MAIN_TASKS,
        sequential=config["figures"]["sequential"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw stability of the circuits of {wildcards.model}"
    script:
        "../scripts/plot_stability.py"


rule plot_methods:
    input:
        methods="results/{model}/comparison/methods.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.methods.svg",
            caption="../report/methods.rst",
            category="6 Evaluation",
            labels={"model": "{model}", "task": "all", "figure": "methods"},
        ),
        png="results/figures/{model}/{model}.methods.png",
    log:
        "logs/{model}/plot_methods.log",
    benchmark:
        "benchmarks/{model}/plot_methods.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_methods.py"),
        main_tasks=MAIN_TASKS,
        clean=config["figures"]["clean"],
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw what the methods agree on in {wildcards.model}"
    script:
        "../scripts/plot_methods.py"


rule plot_overlap:
    input:
        membership="results/{model}/comparison/membership.parquet",
        overlap="results/{model}/comparison/overlap.parquet",
        typology="results/{model}/comparison/typology.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.overlap.svg",
            caption="../report/overlap.rst",
            category="7 Overlap",
            labels={"model": "{model}", "task": "all", "figure": "overlap"},
        ),
        png="results/figures/{model}/{model}.overlap.png",
    log:
        "logs/{model}/plot_overlap.log",
    benchmark:
        "benchmarks/{model}/plot_overlap.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_overlap.py"),
        main_tasks=MAIN_TASKS,
        clean=config["figures"]["clean"],
        circuit=config["figures"]["circuit"],
        sequential=config["figures"]["sequential"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw the overlap of circuits of {wildcards.model}"
    script:
        "../scripts/plot_overlap.py"


rule plot_cross_matrix:
    input:
        cross="results/{model}/comparison/cross.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.cross_matrix.svg",
            caption="../report/cross_matrix.rst",
            category="7 Overlap",
            labels={"model": "{model}", "task": "all", "figure": "cross-task matrix"},
        ),
        png="results/figures/{model}/{model}.cross_matrix.png",
    log:
        "logs/{model}/plot_cross_matrix.log",
    benchmark:
        "benchmarks/{model}/plot_cross_matrix.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_cross_matrix.py"),
        tasks=ALL_TASKS,
        main_tasks=MAIN_TASKS,
        sequential=config["figures"]["sequential"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw circuits of {wildcards.model} on every task"
    script:
        "../scripts/plot_cross_matrix.py"


rule write_summary:
    input:
        unpack(edge_findings),
        unpack(generation_tables),
        unpack(published_table),
        unpack(head_findings),
        model="results/{model}/model.json",
        info=task_table("prompts.json"),
        prompts=main_task_table("prompts.parquet"),
        clean=task_table("clean_summary.parquet"),
        faithfulness=main_task_table("faithfulness.parquet"),
        evaluation=main_task_table("evaluation.parquet"),
        completeness=main_task_table("completeness.parquet"),
        minimality=main_task_table("minimality.parquet"),
        positions=main_task_table("positions.parquet"),
        stability_summary=main_task_table("stability_summary.parquet"),
        membership="results/{model}/comparison/membership.parquet",
        overlap="results/{model}/comparison/overlap.parquet",
        typology="results/{model}/comparison/typology.parquet",
        cross="results/{model}/comparison/cross.parquet",
        controls_summary="results/{model}/comparison/controls_summary.parquet",
        analyses="results/{model}/analyses.json",
    output:
        summary=report(
            "results/figures/{model}/{model}.summary.html",
            caption="../report/summary.rst",
            category="2 Summary",
            labels={"model": "{model}", "page": "findings"},
        ),
        tables=report(
            "results/figures/{model}/{model}.tables.html",
            caption="../report/tables.rst",
            category="2 Summary",
            labels={"model": "{model}", "page": "tables"},
        ),
    log:
        "logs/{model}/write_summary.log",
    benchmark:
        "benchmarks/{model}/write_summary.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/write_summary.py"),
        title=config["study"]["title"],
        main_tasks=MAIN_TASKS,
        tasks=ALL_TASKS,
        threshold=config["comparison"]["threshold"],
        order=config["comparison"]["order"],
        kind=config["ablation"]["kind"],
        groups=config["ablation"]["groups"],
        thresholds=config["search"]["thresholds"],
        orders=list(settings.order_names(config["search"]["orders"])),
        bootstrap=config["statistics"]["bootstrap"],
        controls=config["comparison"]["controls"],
        labels=config["heads"]["labels"],
    message:
        "Write the summary of {wildcards.model}"
    script:
        "../scripts/write_summary.py"
