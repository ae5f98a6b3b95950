"""The update that a Keras optimizer makes of a gradient, without making it.

A rule knows an optimizer's formula and where its slots are. It is what PUB calls f: from a gradient
and slots to an update Δθ, which the learning rate is still to multiply, and new slots.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl import compat, rows


class Rule:
    """The formula of one kind of optimizer.

    Args:
        optimizer: a Keras optimizer.
    """

    #: The slots of a variable: their names here ("m" is the momentum), and the optimizer's lists.
    slots: dict[str, str] = {}

    def __init__(self, optimizer):
        self._optimizer = optimizer

    def of_rows(self) -> Rule:
        """The rule of a table of which a step moves the rows in the batch."""
        return self

    def names(self) -> list[str]:
        """Of the slots that this optimizer has."""
        return list(self.slots)

    def slot(self, name: str, variable) -> tf.Variable:
        """A slot of a variable."""
        return compat.tf_variable(compat.slot(self._optimizer, self.slots[name], variable))

    def read(self, variable, ids=None) -> dict[str, tf.Tensor]:
        """The slots of a variable, float32; of a table, if ``ids`` are given, those of its rows."""
        slots = {name: self.slot(name, variable) for name in self.names()}
        if ids is not None:
            slots = {name: rows.read(slot, ids) for name, slot in slots.items()}
        return {name: tf.cast(slot, tf.float32) for name, slot in slots.items()}

    def initial(self) -> dict[str, float]:
        """What the slots begin with."""
        return dict.fromkeys(self.names(), 0.0)

    def step(self, gradient, slots: dict, iteration) -> tuple[tf.Tensor, dict]:
        """An update and the slots behind it.

        Args:
            gradient: float32, of the variable's shape, or ``[tasks, ...]`` with slots that
                broadcast with it.
            slots: as from :meth:`read`.
            iteration: how many steps were made before this one, float32.
        """
        raise NotImplementedError

    def parts(self, gradient, slots: dict, iteration) -> tuple[tf.Tensor, tf.Tensor]:
        """An update as of :meth:`step`, and what it would be with a momentum of 0: the part of it
        that is the gradient's own.
        """
        bare = {name: tf.zeros([]) if name == "m" else slot for name, slot in slots.items()}
        whole, _ = self.step(gradient, slots, iteration)
        own, _ = self.step(gradient, bare, iteration)
        return whole, own


class AdamRule(Rule):
    """Adam, AdamW, and Clippy before it clips."""

    slots = {"m": "_momentums", "v": "_velocities"}

    def __init__(self, optimizer):
        super().__init__(optimizer)
        self._first = optimizer.beta_1

    def of_rows(self):
        rule = type(self)(self._optimizer)
        given = getattr(self._optimizer, "row_beta_1", None)
        rule._first = self._first if given is None else given
        return rule

    def names(self):
        # Without momentum there is nothing to keep of it.
        return ["m", "v"] if self._first else ["v"]

    def step(self, gradient, slots, iteration):
        second = self._optimizer.beta_2
        v = second * slots["v"] + (1 - second) * gradient**2
        if not self._first:
            return self._unbiased(iteration) * gradient / self._root(v), {"v": v}
        m = self._first * slots["m"] + (1 - self._first) * gradient
        return self._unbiased(iteration) * m / self._root(v), {"m": m, "v": v}

    def parts(self, gradient, slots, iteration):
        # Every line is a pass over the tasks' gradients: no more of them than there must be.
        second, unbiased = self._optimizer.beta_2, self._unbiased(iteration)
        root = self._root(second * slots["v"] + (1 - second) * gradient**2)
        own = (unbiased * (1 - self._first)) * gradient
        if not self._first:
            update = own / root
            return update, update
        return ((unbiased * self._first) * slots["m"] + own) / root, own / root

    def _unbiased(self, iteration):
        count = iteration + 1
        return tf.sqrt(1 - self._optimizer.beta_2**count) / (1 - self._first**count)

    def _root(self, v):
        return tf.sqrt(v) + self._optimizer.epsilon


class AdagradRule(Rule):
    """AdaGrad."""

    slots = {"sum": "_accumulators"}

    def initial(self):
        return {"sum": float(self._optimizer.initial_accumulator_value)}

    def step(self, gradient, slots, iteration):
        total = slots["sum"] + gradient**2
        return gradient / tf.sqrt(total + self._optimizer.epsilon), {"sum": total}


class RMSpropRule(Rule):
    """RMSprop, with momentum and centred if the optimizer is."""

    slots = {"v": "_velocities", "m": "_momentums", "mean": "_average_gradients"}

    def names(self):
        found = ["v"]
        if self._optimizer.momentum > 0:
            found.append("m")
        if self._optimizer.centered:
            found.append("mean")
        return found

    def step(self, gradient, slots, iteration):
        rho = self._optimizer.rho
        new = {"v": rho * slots["v"] + (1 - rho) * gradient**2}
        spread = new["v"]
        if "mean" in slots:
            new["mean"] = rho * slots["mean"] + (1 - rho) * gradient
            spread = spread - new["mean"] ** 2
        update = gradient / tf.sqrt(spread + self._optimizer.epsilon)
        if "m" in slots:
            # Keras keeps the momentum of steps, learning rate included.
            rate = tf.cast(compat.learning_rate(self._optimizer), tf.float32)
            new["m"] = self._optimizer.momentum * slots["m"] + rate * update
            update = tf.math.divide_no_nan(new["m"], rate)
        return update, new


class SGDRule(Rule):
    """SGD, with or without momentum."""

    slots = {"m": "momentums"}

    def names(self):
        return ["m"] if self._optimizer.momentum > 0 else []

    def step(self, gradient, slots, iteration):
        if "m" not in slots:
            return gradient, {}
        # Keras keeps the momentum of steps, learning rate included, pointing downhill.
        rate = tf.cast(compat.learning_rate(self._optimizer), tf.float32)
        momentum = self._optimizer.momentum
        m = momentum * slots["m"] - rate * gradient
        shift = momentum * m - rate * gradient if self._optimizer.nesterov else m
        return -tf.math.divide_no_nan(shift, rate), {"m": m}


_RULES: dict[type, type[Rule]] = {
    keras.optimizers.Adam: AdamRule,
    keras.optimizers.AdamW: AdamRule,
    keras.optimizers.Adagrad: AdagradRule,
    keras.optimizers.RMSprop: RMSpropRule,
    keras.optimizers.SGD: SGDRule,
}

#: The optimizers whose updates are known; besides, Clippy and the lazy ones.
SUPPORTED = sorted(kind.__name__ for kind in _RULES)


def formula_of(optimizer) -> Rule:
    """The rule of a Keras optimizer, without a look at what it does to a gradient before.

    Raises:
        ValueError: another optimizer.
    """
    optimizer = compat.unscaled(optimizer)
    kind = vars(type(optimizer)).get("formula", type(optimizer))
    if kind not in _RULES:
        raise ValueError(
            f"`optimizer` must be one of {SUPPORTED} for a balancer that reads updates. "
            f"Received: {type(optimizer).__name__}"
        )
    return _RULES[kind](optimizer)


def rule_of(optimizer) -> Rule:
    """The rule of a Keras optimizer.

    Raises:
        ValueError: another optimizer, or an option whose update is not known.
    """
    rule = formula_of(optimizer)
    optimizer = compat.unscaled(optimizer)
    options = ("amsgrad", "clipnorm", "clipvalue", "global_clipnorm", "use_ema")
    set_options = [name for name in options if getattr(optimizer, name, None)]
    if getattr(optimizer, "gradient_accumulation_steps", None):
        set_options.append("gradient_accumulation_steps")
    if set_options:
        raise ValueError(
            f"`optimizer` must be without {set_options} for a balancer that reads updates."
        )
    return rule
