"""RunConfig -> NeMo objects -> a run folder. Names no model family and no task; those come from their registries."""
