"""Next-token prediction on packed documents: the task object, light enough for a login node."""

from nemo_ext.tasks.task import Task

TASK = Task(
    name="pretrain",
    data_module="nemo_ext.tasks.pretrain:PretrainingData",
    data_step="nemo_ext.tasks.pretrain:data_step",
    forward_step="nemo_ext.tasks.pretrain:forward_step",
    order_follows_steps=True,
    reference_loss="nemo_ext.tasks.reference:causal_loss",
)
