"""What the training process of a job gets is what was given, whatever its characters."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cls_launch.targets.kubernetes import KubernetesSettings, KubernetesTarget
from cls_launch.targets.local import LocalSettings, LocalTarget
from cls_launch.targets.references import escape_references
from cls_launch.targets.skypilot import SkyPilotSettings, SkyPilotTarget
from cls_launch.targets.slurm import SlurmSettings, SlurmTarget
from cls_launch.targets.target import Job, Resources, Target
from cls_launch.targets.vertex import VertexSettings, VertexTarget

STRANGE = (
    "a b",
    " leading and trailing ",
    "it's",
    '"quoted"',
    "$HOME",
    "$(id)",
    "$$(id)",
    "$$",
    "$$$(X)$",
    "${HOME}",
    "$é(X)",
    "$",
    "`id`",
    "line\nline\n",
    "#SBATCH --nodes=9\n#SBATCH --nodes=9",
    "tab\there",
    "100% %x %j %%",
    "{{ x }} {% y %} {x}",
    "é\u2028ß\U0001f600",
    "--leading-dashes",
    "-m",
    "--",
    "~callbacks",
    "#x",
    "a\\",
    "\\n",
    "*",
    "!x",
    "a;b|c&d>e<f",
    "[1, 2]",
    "{a: [1]}",
    "yes",
    "null",
    "1e3",
    "0o17",
    "2026-01-01",
    "",
)
"""Values of an argument and of an environment variable."""

SHOW = 'printf \'%s\\0\' "$@" "$A"'
"""Prints arguments and a variable, separated by characters that neither can hold."""

MakeJob = Callable[..., Job]
Received = tuple[list[str], str]


def expand(text: str) -> str:
    """Expand references as Kubernetes does, whose documentation that of Vertex AI repeats.

    `$$` is `$`, and `$(NAME)` is the value of NAME. A lone `$` is kept together with the next byte,
    which is read as a character.
    """
    source = text.encode()
    result, start = b"", 0
    position = 0
    while position < len(source) - 1:
        if source[position : position + 1] != b"$":
            position += 1
            continue
        result += source[start:position]
        following = source[position + 1 : position + 2]
        end = source.find(b")", position)
        if following == b"$":
            result += b"$"
        elif following == b"(" and end >= 0:
            result += b"VALUE"
            position = end - 1
        else:
            result += b"$" + following.decode("latin-1").encode()
        position += 2
        start = position
    return (result + source[start:]).decode(errors="replace")


@pytest.fixture
def receive(
    make_job: MakeJob, add_command: Any, tmp_path: Path
) -> Callable[[str, tuple[str, ...], str], Received]:
    """Return a function: the arguments and the variable `A` that a job's process gets."""
    for name in ("uv", "sudo", "srun", "docker"):
        add_command(name, SHOW)
    checkout = tmp_path / "it's $HOME"
    checkout.mkdir()
    targets: dict[str, Target[Any]] = {
        "kubernetes": KubernetesTarget(KubernetesSettings()),
        "local": LocalTarget(LocalSettings()),
        "skypilot": SkyPilotTarget(SkyPilotSettings()),
        "slurm": SlurmTarget(SlurmSettings(checkout=str(checkout))),
        "vertex": VertexTarget(VertexSettings(project="my-project")),
    }

    def run(script: str) -> list[str]:
        environment = {**os.environ, "SLURM_JOB_ID": "1"}
        result = subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, check=True
        )
        return result.stdout.decode().split("\0")[:-1]

    def receive_in_job(name: str, arguments: tuple[str, ...], value: str) -> Received:
        job = make_job(
            arguments=arguments, environment={"A": value}, resources=Resources(gpus=1, gpu="L4")
        )
        text = targets[name].render(job)
        if name == "slurm":
            words = run(text.partition("code=$?")[0])
            assert words[:4] == ["--export=ALL", "uv", "run", "apps/train"]
            return words[4:-1], words[-1]
        if name in ("kubernetes", "vertex"):
            return expand_container(read_container(name, text))
        words = run(text if name == "local" else yaml.safe_load(text)["run"])[:-1]
        image = words.index(str(job.image))
        assignment = words[words.index("--env") + 1]
        return words[image + 1 :], assignment.removeprefix("A=")

    return receive_in_job


def read_container(target: str, text: str) -> dict[str, Any]:
    if target == "kubernetes":
        return dict(yaml.safe_load(text)["spec"]["template"]["spec"]["containers"][0])
    return dict(json.loads(text)["jobSpec"]["workerPoolSpecs"][0]["containerSpec"])


def expand_container(container: dict[str, Any]) -> Received:
    return [expand(each) for each in container["args"]], expand(container["env"][0]["value"])


@pytest.mark.parametrize("target", ["kubernetes", "local", "skypilot", "slurm", "vertex"])
def test_arguments_and_variables_arrive_as_they_were_given(
    receive: Callable[..., Received], target: str
) -> None:
    """All values at once: a process each would take seconds."""
    arguments = [each for value in STRANGE for each in (value, f"key={value}")]
    assert receive(target, tuple(arguments), "x")[0] == arguments
    joined = "|".join(STRANGE)
    assert receive(target, (), joined) == ([], joined)


@pytest.mark.parametrize("value", STRANGE)
@pytest.mark.parametrize("target", ["kubernetes", "vertex"])
def test_each_value_of_a_variable_arrives(
    receive: Callable[..., Received], target: str, value: str
) -> None:
    assert receive(target, (value,), value) == ([value], value)


@given(st.text(alphabet="$(){}AÄ😀 ", max_size=12))
@example("$Ä")
def test_references_are_escaped(text: str) -> None:
    assert expand(escape_references(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(X)", "VALUE"),
        ("$$(X)", "$(X)"),
        ("$$$(X)", "$VALUE"),
        ("$X $ $(X", "$X $ $(X"),
        ("$$$$", "$$"),
        ("$Ä", "$Ã\ufffd"),
    ],
)
def test_the_expansion_of_this_test_is_that_of_kubernetes(text: str, expected: str) -> None:
    assert expand(text) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    value=st.one_of(
        st.sampled_from(["y", "N", "yes", "Off", "NULL", "~", "=", "<<", ".5", "-.inf", "0x1F"]),
        st.from_regex(r"[0-9+-][0-9_.:eEoxb+-]{0,8}", fullmatch=True),
    )
)
def test_kubernetes_gets_no_text_that_another_yaml_reads_as_something_else(
    make_job: MakeJob, value: str
) -> None:
    target = KubernetesTarget(KubernetesSettings())
    text = target.render(make_job(environment={"A": value}, secrets={}))
    _, _, rest = text.partition('- name: "A"\n')
    assert rest.lstrip().startswith(f'value: "{value}"')
