"""Score every head of a model as a previous-token, duplicate-token and induction head on repeated random tokens."""

from atlas.circuit import studies
from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap
from atlas.heads import detectors
from atlas.prompts import tokens
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

description = artifacts.read_json(inputs.model)
model = studies.load_model(inputs.model, job.model_folder(snakemake), p.run)
tokenizer = tokens.load_tokenizer(str(job.model_folder(snakemake)))
bos = tokenizer.bos_token_id if p.prepend_bos else None
if p.prepend_bos and bos is None:
    raise StudyError(f"models.{w.model}: prepend_bos is true but the tokenizer has no BOS token; set it to false")
candidates = detectors.ordinary_tokens(tokenizer, description["d_vocab"])
length = detectors.half_length(p.length, description["max_tokens"], p.prepend_bos)
repeated = detectors.repeated_tokens(candidates, length, p.sequences, p.seed, bos)
job.log.info("%d sequences of %d random tokens, twice", p.sequences, length)
found = detectors.scores(model, repeated, p.prepend_bos)
table = detectors.table(found, Bootstrap(p.bootstrap, p.seed))
table.insert(0, "model", w.model)

provenance = job.provenance(snakemake)
artifacts.write_table(table, out.detectors, provenance)
