"""Import everything that an evaluation needs, for processes that are forked from this one."""

from cls_train.stages.evaluate import warm_up_exporter

warm_up_exporter()
