"""What a run will need before it is submitted: memory of each rank, time, GPU-hours, money, storage, number of jobs.

Arithmetic on the family's mapping table and the run's settings, without torch, so that it works on a login node. The
memory model is that of the local layers (`nemo_ext/layers`), tensor for tensor; Transformer Engine's keep about as much.
"""
