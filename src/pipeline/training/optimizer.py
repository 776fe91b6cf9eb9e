"""The optimizer and its learning rate schedule."""

import keras

from pipeline.config.schema import TrainSection


def make_optimizer(config: TrainSection, steps: int) -> keras.optimizers.Optimizer:
    """Return the optimizer of the configuration, with its schedule over `steps` steps."""
    rate: float | keras.optimizers.schedules.LearningRateSchedule = config.learning_rate
    if config.schedule == "cosine":
        warm = round(config.warmup * steps)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warm else rate,
            decay_steps=max(1, steps - warm),
            warmup_target=rate if warm else None,
            warmup_steps=warm,
        )
    averaging = {"use_ema": config.ema_decay > 0, "ema_momentum": config.ema_decay}
    if config.optimizer == "adamw":
        return keras.optimizers.AdamW(
            rate, weight_decay=config.weight_decay, beta_2=config.beta_2, **averaging
        )
    return keras.optimizers.Adam(rate, beta_2=config.beta_2, **averaging)
