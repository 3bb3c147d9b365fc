"""The text of `apps/launch --help`."""

from cls_export.contract.commands import EXIT_CODES

HELP = f"""\
usage: apps/launch [KEY=VALUE ...] [--dry-run] [-m] -- ARGUMENTS OF apps/train
       apps/launch status|logs|stop NAME [target=TARGET] [KEY=VALUE ...]

Check the arguments of apps/train on this machine, then start the run on another one.

examples:
  apps/launch target=kubernetes run.name=first image=REGISTRY/cls-train:TAG resources.gpu=L4 \\
    --dry-run -- experiment=jersey_numbers trainer=gpu data.root=gs://BUCKET/crops \\
    run.remote=gs://BUCKET/runs
  apps/launch target=slurm run.name=seeds -m -- trainer=gpu seed=1,2,3
  apps/launch logs first target=kubernetes

settings before --:
  target=TARGET         {{targets}}
  target.KEY=VALUE      settings of the target, see conf/launch/TARGET.yaml
  run.name=NAME         name of the run and of the job; an earlier run of this name is resumed
  image=IMAGE           REGISTRY/REPOSITORY:TAG or @sha256:DIGEST; a tag is resolved to its digest
  resources.KEY=VALUE   gpus (number), gpu (model), cpus, memory_gb, disk_gb
  secrets=[VARIABLE]    environment variables that hold secrets; only their names are submitted
  allow_dirty=true      launch although the checkout has uncommitted changes
  other settings        see conf/launch.yaml

flags:
  --dry-run             print what would be submitted, and submit nothing
  -m, --multirun        one job for every combination of several values, as in seed=1,2
  --version             print the version of cls-launch

See docs/cloud.md.

{EXIT_CODES}"""
