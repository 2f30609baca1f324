"""Jobs: what a site is, a job as a script for its scheduler, submitting it and finding it again."""
