# Features of a sparse autoencoder, trained on the study's text or loaded: how good it is, and what its features do.

FEATURES = {key: value for key, value in config["geometry"]["features"].items() if key != "path"}
AUTOENCODER = {"config": "features/cfg.json", "weights": "features/sae_weights.safetensors"}


rule train_features:
    input:
        model="results/{model}/model.json",
        prompts=each(MAIN, "prompts.parquet"),
    output:
        **filled("results/{model}/geometry", features="features.parquet", **AUTOENCODER),
    log:
        "logs/{model}/train_features.log",
    benchmark:
        "benchmarks/{model}/train_features.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 60, gpu=True),
    params:
        **STATISTICS,
        **FEATURES,
        **text_of_features(),
        code=library("scripts/train_features.py"),
        run=run_settings,
        prepend_bos=prepend_bos,
        loaded=autoencoder_files(),
    message:
        "Train a sparse autoencoder of {wildcards.model}"
    script:
        "../scripts/train_features.py"


rule find_features:
    input:
        **{name: f"results/{{model}}/geometry/{file}" for name, file in AUTOENCODER.items()},
        model="results/{model}/model.json",
        prompts=each(MAIN, "prompts.parquet"),
        layouts=each(MAIN, "prompts.json"),
        clean=each(MAIN, "clean.parquet"),
        circuits="results/{model}/comparison/circuits.json",
    output:
        **filled(
            "results/{model}/geometry",
            **{name: f"{name}.parquet" for name in shown.GEOMETRY["features"] if name != "features"},
        ),
    log:
        "logs/{model}/find_features.log",
    benchmark:
        "benchmarks/{model}/find_features.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 60, gpu=True),
    params:
        **STATISTICS,
        **FEATURES,
        **text_of_features(),
        code=library("scripts/find_features.py"),
        run=run_settings,
        prepend_bos=prepend_bos,
        explained=EXPLAINED_MAIN,
    message:
        "Find what features of {wildcards.model} do for members, heads and answers"
    script:
        "../scripts/find_features.py"
