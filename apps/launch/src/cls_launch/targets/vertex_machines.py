"""Regions, GPUs, and machine types of Vertex AI training.

A test compares regions and names of GPUs with google-cloud-aiplatform. Google lists the machines on
https://cloud.google.com/compute/docs/accelerator-optimized-machines and on
https://cloud.google.com/vertex-ai/docs/training/configure-compute, with which this table has not
been compared. In November 2026, A2, A3 High, A3 Mega, and G2 were compared with lists in public
repositories.
"""

import re
from dataclasses import dataclass

from cls_export.contract.suggestions import did_you_mean
from cls_launch.errors import LaunchError
from cls_launch.targets.target import Resources

REGIONS = frozenset(
    [
        "africa-south1",
        "asia-east1",
        "asia-east2",
        "asia-northeast1",
        "asia-northeast2",
        "asia-northeast3",
        "asia-south1",
        "asia-south2",
        "asia-southeast1",
        "asia-southeast2",
        "australia-southeast1",
        "australia-southeast2",
        "europe-central2",
        "europe-north1",
        "europe-north2",
        "europe-southwest1",
        "europe-west1",
        "europe-west2",
        "europe-west3",
        "europe-west4",
        "europe-west6",
        "europe-west8",
        "europe-west9",
        "europe-west12",
        "me-central1",
        "me-central2",
        "me-west1",
        "northamerica-northeast1",
        "northamerica-northeast2",
        "southamerica-east1",
        "southamerica-west1",
        "us-central1",
        "us-east1",
        "us-east4",
        "us-east5",
        "us-east7",
        "us-south1",
        "us-west1",
        "us-west2",
        "us-west3",
        "us-west4",
        "us-west8",
    ]
)
"""Regions of the service. Not every region has every GPU: the service answers that."""

ACCELERATORS = {
    "A100": "NVIDIA_TESLA_A100",
    "A100-80GB": "NVIDIA_A100_80GB",
    "B200": "NVIDIA_B200",
    "H100": "NVIDIA_H100_80GB",
    "H100-MEGA": "NVIDIA_H100_MEGA_80GB",
    "H200": "NVIDIA_H200_141GB",
    "L4": "NVIDIA_L4",
    "P100": "NVIDIA_TESLA_P100",
    "P4": "NVIDIA_TESLA_P4",
    "T4": "NVIDIA_TESLA_T4",
    "V100": "NVIDIA_TESLA_V100",
}
"""GPU → its name in the API."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine type.

    Attributes:
        name: Machine type, such as g2-standard-8.
        gpu: GPU of the machine, a key of `ACCELERATORS`. None if it has none.
        gpus: Number of GPUs.
        cpus: Number of virtual CPUs.
        memory_gb: Memory in GB.
        on_demand: Whether it can be had without `spot` and `flex_start`.
        is_known: Whether the table has it. Otherwise CPUs and memory are those that were asked for.
    """

    name: str
    gpu: str | None
    gpus: int
    cpus: int
    memory_gb: int
    on_demand: bool = True
    is_known: bool = True


MACHINES_WITH_GPUS = (
    Machine("g2-standard-4", "L4", 1, 4, 16),
    Machine("g2-standard-8", "L4", 1, 8, 32),
    Machine("g2-standard-12", "L4", 1, 12, 48),
    Machine("g2-standard-16", "L4", 1, 16, 64),
    Machine("g2-standard-32", "L4", 1, 32, 128),
    Machine("g2-standard-24", "L4", 2, 24, 96),
    Machine("g2-standard-48", "L4", 4, 48, 192),
    Machine("g2-standard-96", "L4", 8, 96, 384),
    Machine("a2-highgpu-1g", "A100", 1, 12, 85),
    Machine("a2-highgpu-2g", "A100", 2, 24, 170),
    Machine("a2-highgpu-4g", "A100", 4, 48, 340),
    Machine("a2-highgpu-8g", "A100", 8, 96, 680),
    Machine("a2-megagpu-16g", "A100", 16, 96, 1360),
    Machine("a2-ultragpu-1g", "A100-80GB", 1, 12, 170),
    Machine("a2-ultragpu-2g", "A100-80GB", 2, 24, 340),
    Machine("a2-ultragpu-4g", "A100-80GB", 4, 48, 680),
    Machine("a2-ultragpu-8g", "A100-80GB", 8, 96, 1360),
    Machine("a3-highgpu-1g", "H100", 1, 26, 234, on_demand=False),
    Machine("a3-highgpu-2g", "H100", 2, 52, 468, on_demand=False),
    Machine("a3-highgpu-4g", "H100", 4, 104, 936, on_demand=False),
    Machine("a3-highgpu-8g", "H100", 8, 208, 1872),
    Machine("a3-megagpu-8g", "H100-MEGA", 8, 208, 1872),
    Machine("a3-ultragpu-8g", "H200", 8, 224, 2952),
    Machine("a4-highgpu-8g", "B200", 8, 224, 3968),
)
"""Machine types whose GPUs are part of them, the smallest first."""

_N1_CPUS = (4, 8, 16, 32, 64, 96)
_N1_COUNTS = {"P100": (1, 2, 4), "P4": (1, 2, 4), "T4": (1, 2, 4), "V100": (1, 2, 4, 8)}
"""GPUs that are attached to n1 machines → numbers that can be attached."""

_FAMILIES_WITH_GPUS = re.compile(r"^(a\d+x?|g\d+)-")
_API_NAME = re.compile(r"^NVIDIA_[A-Z0-9_]+$")
_TYPE = re.compile(r"^[a-z][a-z0-9]*(-[a-z0-9]+)+$")


def check_region(region: str) -> None:
    """Raise `LaunchError` for a region that Vertex AI does not have."""
    if region not in REGIONS:
        raise LaunchError(
            f"target.region={region} is no region of Vertex AI; {did_you_mean(region, REGIONS)}"
        )


def choose_machine(resources: Resources, machine: str | None, on_demand: bool) -> Machine:
    """Return the machine type of a job.

    Args:
        resources: What the job needs.
        machine: Machine type, or None for the smallest one that has the resources.
        on_demand: Whether the job is to run on demand, neither `spot` nor `flex_start`.

    Raises:
        LaunchError: Unknown GPU, or a combination that does not exist.
    """
    if resources.gpus and resources.gpu is None:
        raise LaunchError(
            "target=vertex needs the model of the GPU: add resources.gpu=L4, or resources.gpus=0 "
            f"for the CPU; valid models: {', '.join(sorted(ACCELERATORS))}"
        )
    if resources.gpus and resources.gpu not in ACCELERATORS:
        return _accept_unknown_gpu(resources, machine)
    if machine is None:
        chosen = _choose_smallest(resources, on_demand)
    else:
        chosen = _check_machine(resources, machine)
    if on_demand and not chosen.on_demand:
        raise LaunchError(
            f"{chosen.name} cannot be had on demand: set target.strategy=spot or "
            "target.strategy=flex_start, or use resources.gpus=8"
        )
    return chosen


def name_accelerator(gpu: str) -> str:
    """Return the name of a GPU in the API."""
    return ACCELERATORS.get(gpu, gpu)


def _accept_unknown_gpu(resources: Resources, machine: str | None) -> Machine:
    """Leave a GPU that is newer than the table to the service, if it has a name of the API."""
    gpu = str(resources.gpu)
    if machine is None or not _API_NAME.match(gpu):
        hint = did_you_mean(gpu, ACCELERATORS)
        raise LaunchError(
            f"resources.gpu={gpu:.200} is no known GPU of Vertex AI; {hint}. For a newer one, give "
            "its name in the API and its machine type: resources.gpu=NVIDIA_… target.machine=TYPE"
        )
    _check_type(machine)
    return _describe_unknown(machine, gpu, resources)


def _describe_unknown(name: str, gpu: str | None, resources: Resources) -> Machine:
    cpus, memory_gb = resources.cpus, resources.memory_gb
    return Machine(name, gpu, resources.gpus, cpus, memory_gb, is_known=False)


def _check_type(name: str) -> None:
    if not _TYPE.match(name):
        hint = did_you_mean(name, [machine.name for machine in MACHINES_WITH_GPUS])
        raise LaunchError(f"target.machine={name:.200} is no machine type; {hint}")


def _choose_smallest(resources: Resources, on_demand: bool) -> Machine:
    wanted = resources.gpu if resources.gpus else None
    same_gpu = [machine for machine in _list_machines() if machine.gpu == wanted]
    counts = sorted({machine.gpus for machine in same_gpu})
    if resources.gpus not in counts:
        available = " or ".join(map(str, counts))
        raise LaunchError(
            f"resources.gpus={resources.gpus}: machines with {wanted} have {available} GPUs"
        )
    for machine in same_gpu:
        is_large_enough = (
            machine.cpus >= resources.cpus and machine.memory_gb >= resources.memory_gb
        )
        if machine.gpus == resources.gpus and is_large_enough:
            return machine
    raise LaunchError(
        f"No machine type with {resources.gpus} x {wanted or 'no GPU'} has "
        f"{resources.cpus} CPUs and {resources.memory_gb} GB: lower resources.cpus or "
        "resources.memory_gb, or name a type with target.machine"
    )


def _list_machines() -> list[Machine]:
    machines = list(MACHINES_WITH_GPUS)
    for gpu, counts in _N1_COUNTS.items():
        for count in counts:
            for cpus in _N1_CPUS:
                machines.append(Machine(f"n1-standard-{cpus}", gpu, count, cpus, 15 * cpus // 4))
    for kind, gb_per_cpu in (("standard", 4), ("highmem", 8)):
        for cpus in (2, 4, 8, 16):
            machines.append(Machine(f"e2-{kind}-{cpus}", None, 0, cpus, gb_per_cpu * cpus))
    for kind, gb_per_cpu in (("standard", 4), ("highmem", 8)):
        for cpus in (32, 48, 64, 80):
            machines.append(Machine(f"n2-{kind}-{cpus}", None, 0, cpus, gb_per_cpu * cpus))
    return machines


def _check_machine(resources: Resources, name: str) -> Machine:
    """Refuse combinations that are known not to exist; the service answers for new types."""
    known = {machine.name: machine for machine in MACHINES_WITH_GPUS}
    gpu = resources.gpu if resources.gpus else None
    if name in known:
        machine = known[name]
        if (gpu, resources.gpus) != (machine.gpu, machine.gpus):
            given = f"{resources.gpus} x {gpu}" if gpu else "no GPU"
            raise LaunchError(
                f"target.machine={name} has {machine.gpus} x {machine.gpu}, but resources ask "
                f"for {given}: set resources.gpu={machine.gpu} resources.gpus={machine.gpus}, "
                "or leave out target.machine"
            )
        return machine
    _check_type(name)
    if gpu is not None and not _FAMILIES_WITH_GPUS.match(name):
        _check_n1(name, gpu, resources.gpus)
    known_names = [machine.name for machine in _list_machines()]
    if name in known_names:
        return Machine(name, gpu, resources.gpus, resources.cpus, resources.memory_gb)
    return _describe_unknown(name, gpu, resources)


def _check_n1(name: str, gpu: str, count: int) -> None:
    if gpu not in _N1_COUNTS:
        types = [machine.name for machine in MACHINES_WITH_GPUS if machine.gpu == gpu]
        raise LaunchError(
            f"target.machine={name} has no {gpu}: leave out target.machine, or use one of "
            f"{', '.join(types)}"
        )
    if not name.startswith("n1-"):
        raise LaunchError(f"target.machine={name} has no {gpu}, which only n1 machines have")
    if count not in _N1_COUNTS[gpu]:
        numbers = " or ".join(map(str, _N1_COUNTS[gpu]))
        raise LaunchError(f"resources.gpus={count}: {name} can have {numbers} x {gpu}")
