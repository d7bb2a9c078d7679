"""What a recipe needs before it is started: memory for each GPU, the time of a step, and which ZeRO stage fits."""
