"""What the ranking models have in common: embedded features below, one tower per task above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from tfmtl.features import FeatureSpec
from tfmtl.models.layers import (
    FeatureEmbedding,
    ParallelMLP,
    check_units,
    per_task,
    seeds_from,
)
from tfmtl.models.representation import Representation


class FeatureModel(keras.Model):
    """A model from a dict of columns to a dict of predictions, built as soon as it is made.

    A subclass fills :meth:`build_trunk` and :meth:`trunk`; embeddings and towers are here.

    Args:
        tasks: names of the tasks, in the order of the outputs.
        features: the input columns.
        tower_units: widths of each task's hidden layers.
        activation: of the hidden layers.
        output_activation: of the predictions: one for all or a dict by task. The default gives
            probabilities; ``None`` gives logits or a regression's value.
        layout: what a server and ``MultiTaskModel`` are told to expect: ``"rows"`` or ``"lists"``.
            The model itself takes both.
        seed: makes the initial weights reproducible. Every layer draws from a seed of its own.

    Call: rows ``{column: [batch]}`` → ``{task: [batch, 1]}``, or padded lists
    ``{column: [batch, list]}`` → ``{task: [batch, list]}``, each item computed like a row. float32.

    Raises:
        ValueError: no tasks or a task named twice, widths below 1, an unknown ``layout``, or an
            ``output_activation`` dict whose keys are not the tasks; when called, a column that is
            missing or columns that disagree in shape.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        features: FeatureSpec | Mapping,
        *,
        tower_units: Sequence[int] = (32,),
        activation: str = "relu",
        output_activation: str | Mapping[str, str | None] | None = "sigmoid",
        layout: str = "rows",
        seed: int | None = None,
        **kwargs,
    ):
        trunk_config = {key: kwargs.pop(key) for key in self.trunk_defaults if key in kwargs}
        super().__init__(**kwargs)
        if isinstance(tasks, str) or not tasks or len(set(tasks)) != len(tasks):
            raise ValueError(f"`tasks` must be distinct names, at least one. Received: {tasks!r}")
        if layout not in ("rows", "lists"):
            raise ValueError(f"`layout` must be 'rows' or 'lists'. Received: {layout!r}")
        tasks = list(tasks)
        if isinstance(features, Mapping):
            features = FeatureSpec(**features)
        self.tasks = tuple(tasks)
        self.features = features
        self.tower_units = check_units("tower_units", tower_units, empty=True)
        self.activation = activation
        self.output_activation = per_task("output_activation", output_activation, tasks)
        self.layout = layout
        self.seed = seed
        self.trunk_config = {**self.trunk_defaults, **trunk_config}

        self._seeds = seeds_from(seed)
        self.embedding = FeatureEmbedding(features, self._seeds, name="embedding")
        trunk_width = self.build_trunk(self.embedding.output_width, **self.trunk_config)
        self.representation = Representation(name="representation")
        self.towers = [
            ParallelMLP(
                1,
                trunk_width,
                (*self.tower_units, 1),
                self._seeds,
                activation=activation,
                output_activation=self.output_activation[task] or "linear",
                name=f"tower_{task}",
            )
            for task in self.tasks
        ]
        self.built = True

    #: A subclass' own arguments and their defaults.
    trunk_defaults: dict = {}

    def build_trunk(self, input_width: int, **config) -> int:
        """Make the layers between embeddings and towers; returns the width each tower reads."""
        raise NotImplementedError

    def trunk(self, embedded, training=None) -> list:
        """What the embedding gives → for each task, what its tower reads ``[batch, width]``."""
        raise NotImplementedError

    def call(self, inputs, training=None):
        items = self.embedding.items(inputs)
        states = self.trunk(self.embedding(inputs), training=training)
        states = self.representation(dict(zip(self.tasks, states, strict=True)))
        return {
            task: tf.reshape(tf.cast(tower(states[task]), tf.float32), [-1, items])
            for task, tower in zip(self.tasks, self.towers, strict=True)
        }

    def input_spec_by_column(self) -> dict[str, tf.TensorSpec]:
        """Name, shape and dtype of every input, as a server is told."""
        shape = [None] if self.layout == "rows" else [None, None]
        categorical = {
            n: tf.TensorSpec([*shape, None] if n in self.features.pooling else shape, tf.int32, n)
            for n in self.features.categorical
        }
        return categorical | {n: tf.TensorSpec(shape, tf.float32, n) for n in self.features.numeric}

    def get_config(self) -> dict:
        return {
            "name": self.name,
            "tasks": list(self.tasks),
            "features": self.features.get_config(),
            "tower_units": list(self.tower_units),
            "activation": self.activation,
            "output_activation": dict(self.output_activation),
            "layout": self.layout,
            "seed": self.seed,
            **self.trunk_config,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)
