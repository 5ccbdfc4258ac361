# Figures and pages about what the heads do: from tables only, as in figures.smk.


rule plot_patching:
    input:
        patching="results/{model}/{task}/patching.parquet",
        membership="results/{model}/comparison/membership.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.{task}.patching.svg",
            caption="../report/patching.rst",
            category="8 Heads",
            labels={"model": "{model}", "task": "{task}", "figure": "patching"},
        ),
        png="results/figures/{model}/{model}.{task}.patching.png",
    log:
        "logs/{model}/{task}/plot_patching.log",
    benchmark:
        "benchmarks/{model}/{task}/plot_patching.tsv"
    wildcard_constraints:
        task=one_of(EXPLAINED_MAIN),
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_patching.py"),
        diverging=config["figures"]["diverging"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw patching of {wildcards.task} in {wildcards.model}"
    script:
        "../scripts/plot_patching.py"


rule plot_patching_scatter:
    input:
        patching=explained_main_table("patching.parquet"),
        membership="results/{model}/comparison/membership.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.patching_scatter.svg",
            caption="../report/patching_scatter.rst",
            category="8 Heads",
            labels={"model": "{model}", "task": "all", "figure": "patching: pattern, value, output"},
        ),
        png="results/figures/{model}/{model}.patching_scatter.png",
    log:
        "logs/{model}/plot_patching_scatter.log",
    benchmark:
        "benchmarks/{model}/plot_patching_scatter.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_patching_scatter.py"),
        main_tasks=EXPLAINED_MAIN,
        diverging=config["figures"]["diverging"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw patching of patterns and values of {wildcards.model}"
    script:
        "../scripts/plot_patching_scatter.py"


rule plot_attribution:
    input:
        attribution=explained_main_table("attribution.parquet"),
        membership="results/{model}/comparison/membership.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.attribution.svg",
            caption="../report/attribution.rst",
            category="8 Heads",
            labels={"model": "{model}", "task": "all", "figure": "direct attribution"},
        ),
        png="results/figures/{model}/{model}.attribution.png",
    log:
        "logs/{model}/plot_attribution.log",
    benchmark:
        "benchmarks/{model}/plot_attribution.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_attribution.py"),
        main_tasks=EXPLAINED_MAIN,
        clean=config["figures"]["clean"],
        circuit=config["figures"]["circuit"],
        diverging=config["figures"]["diverging"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw what writes the answer in {wildcards.model}"
    script:
        "../scripts/plot_attribution.py"


rule plot_lens:
    input:
        lens=explained_main_table("lens.parquet"),
        lens_lead=explained_main_table("lens_lead.parquet"),
        lens_increments=explained_main_table("lens_increments.parquet"),
    output:
        svg=report(
            "results/figures/{model}/{model}.lens.svg",
            caption="../report/lens.rst",
            category="8 Heads",
            labels={"model": "{model}", "task": "all", "figure": "logit lens"},
        ),
        png="results/figures/{model}/{model}.lens.png",
    log:
        "logs/{model}/plot_lens.log",
    benchmark:
        "benchmarks/{model}/plot_lens.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_lens.py"),
        main_tasks=EXPLAINED_MAIN,
        clean=config["figures"]["clean"],
        corrupted=config["figures"]["corrupted"],
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw the logit lens of {wildcards.model}"
    script:
        "../scripts/plot_lens.py"


rule plot_attention:
    input:
        attention=explained_main_table("attention.parquet"),
        members=explained_main_table("attention_members.parquet"),
        effects=explained_main_table("component_effects.parquet"),
        membership="results/{model}/comparison/membership.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.attention.svg",
            caption="../report/attention.rst",
            category="8 Heads",
            labels={"model": "{model}", "task": "all", "figure": "attention"},
        ),
        png="results/figures/{model}/{model}.attention.png",
    log:
        "logs/{model}/plot_attention.log",
    benchmark:
        "benchmarks/{model}/plot_attention.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_attention.py"),
        main_tasks=EXPLAINED_MAIN,
        kind=config["ablation"]["kind"],
        sequential=config["figures"]["sequential"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw where heads of {wildcards.model} look"
    script:
        "../scripts/plot_attention.py"


rule plot_detectors:
    input:
        detectors="results/{model}/detectors.parquet",
        membership="results/{model}/comparison/membership.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.detectors.svg",
            caption="../report/detectors.rst",
            category="8 Heads",
            labels={"model": "{model}", "task": "all", "figure": "detectors"},
        ),
        png="results/figures/{model}/{model}.detectors.png",
    log:
        "logs/{model}/plot_detectors.log",
    benchmark:
        "benchmarks/{model}/plot_detectors.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_detectors.py"),
        main_tasks=MAIN_TASKS,
        labels=config["heads"]["labels"],
        sequential=config["figures"]["sequential"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw head detectors of {wildcards.model}"
    script:
        "../scripts/plot_detectors.py"


rule plot_ov:
    input:
        ov=explained_main_table("ov.parquet"),
        membership="results/{model}/comparison/membership.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.ov.svg",
            caption="../report/ov.rst",
            category="8 Heads",
            labels={"model": "{model}", "task": "all", "figure": "what heads write"},
        ),
        png="results/figures/{model}/{model}.ov.png",
    log:
        "logs/{model}/plot_ov.log",
    benchmark:
        "benchmarks/{model}/plot_ov.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_ov.py"),
        main_tasks=EXPLAINED_MAIN,
        k=max(config["heads"]["ov"]["k"]),
        sequential=config["figures"]["sequential"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw what heads of {wildcards.model} write"
    script:
        "../scripts/plot_ov.py"


rule plot_backup:
    input:
        backup=explained_main_table("backup.parquet"),
    output:
        svg=report(
            "results/figures/{model}/{model}.backup.svg",
            caption="../report/backup.rst",
            category="8 Heads",
            labels={"model": "{model}", "task": "all", "figure": "backup heads"},
        ),
        png="results/figures/{model}/{model}.backup.png",
    log:
        "logs/{model}/plot_backup.log",
    benchmark:
        "benchmarks/{model}/plot_backup.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_backup.py"),
        main_tasks=EXPLAINED_MAIN,
        clean=config["figures"]["clean"],
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw backup heads of {wildcards.model}"
    script:
        "../scripts/plot_backup.py"


ON_CARDS = ("patching", "attribution", "attention", "attention_members", "ov")
ON_PAGES = ("patterns", "lens_tokens", "lens_lead")


rule write_head_pages:
    input:
        unpack(head_inputs(EXPLAINED_TASKS, *ON_CARDS)),
        unpack(head_inputs(EXPLAINED_MAIN, *ON_PAGES)),
        roles="results/{model}/comparison/roles.parquet",
        membership="results/{model}/comparison/membership.parquet",
        effects=explained_main_table("component_effects.parquet"),
        prompts=explained_main_table("prompts.parquet"),
    output:
        **head_page(
            "patterns",
            caption="../report/patterns.rst",
            category="8 Heads",
            labels={"model": "{model}", "task": "all", "figure": "attention patterns"},
        ),
        **head_page(
            "lens_tokens",
            caption="../report/lens_tokens.rst",
            category="8 Heads",
            labels={"model": "{model}", "task": "all", "figure": "logit lens, tokens"},
        ),
        heads=report(
            "results/figures/{model}/{model}.heads.html",
            caption="../report/heads.rst",
            category="8 Heads",
            labels={"model": "{model}", "task": "all", "figure": "cards of heads"},
        ),
    log:
        "logs/{model}/write_head_pages.log",
    benchmark:
        "benchmarks/{model}/write_head_pages.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/write_head_pages.py"),
        title=config["study"]["title"],
        main_tasks=EXPLAINED_MAIN,
        tasks=EXPLAINED_TASKS,
        kind=config["ablation"]["kind"],
        labels=config["heads"]["labels"],
        k=max(config["heads"]["ov"]["k"]),
        pattern_prompts=config["heads"]["pattern_prompts"],
        clean=config["figures"]["clean"],
        sequential=config["figures"]["sequential"],
    message:
        "Write cards of the heads of {wildcards.model}"
    script:
        "../scripts/write_head_pages.py"
