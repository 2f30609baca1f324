"""What several tests share: real ranks, tiny models. No fixtures that act behind a test's back."""
