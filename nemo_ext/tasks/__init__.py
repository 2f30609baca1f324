"""What is learned from data: a task is the dataset, the batch, the loss and its name. The engine names none of them."""
