"""Gradients masked by their sign."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl.balancers.base import Balancer, check_wrt
from tfmtl.balancers.dice import Dice, check_seed


@keras.saving.register_keras_serializable("tfmtl")
class GradDrop(Balancer):
    r"""Keeps, entry by entry, the tasks' gradients of one sign, drawn by their majority.

    GradDrop (Chen et al., *Just Pick a Sign*, NeurIPS 2020, Algorithm 1): each entry has the
    positive sign purity

    .. math:: P = \tfrac12\Big(1 + \frac{\sum_i g_i}{\sum_i |g_i|}\Big);

    with :math:`U` uniform on [0, 1], the tasks' positive entries are kept where :math:`P > U`,
    their negative ones elsewhere, and summed. The paper drops gradients of a layer's activations:
    that is ``wrt="representation"``. By default the gradients are those of the shared variables, as
    in LibMTL. Every entry is drawn for itself (the paper may sum over the batch first). With an
    optimizer that steps by rows the entries of a table are those of the batch's rows, in the order
    of their ids: other draws than of the whole table.

    Args:
        seed: of the draws.
        wrt: ``"parameters"``, or ``"representation"`` for the gradients at the
            :class:`~tfmtl.models.Representation` that the backbone marks. The draws then belong
            to the rows of a replica's batch: several replicas draw other ones than one.

    Raises:
        ValueError: ``seed`` is not an integer of 31 bits, or an unknown ``wrt``.
    """

    reads = "gradients"

    def __init__(self, seed: int = 0, wrt: str = "parameters", **kwargs):
        super().__init__(**kwargs)
        self.seed = check_seed(seed)
        self.wrt = check_wrt(wrt)

    def build(self, input_shape):
        self._dice = Dice(self, self.seed)
        self.built = True

    def call(self, losses, gradients=None):
        """What is left of the tasks' gradients.

        Args:
            losses: ``[tasks]``.
            gradients: for each shared variable its gradient by each task, ``[tasks, ...]``.

        Returns:
            For each shared variable the gradients with zeros for what is dropped, ``[tasks, ...]``.
        """
        seed = self._dice.roll()
        found = []
        for i, stacked in enumerate(gradients or ()):
            total, size = tf.reduce_sum(stacked, 0), tf.reduce_sum(tf.abs(stacked), 0)
            purity = 0.5 * (1 + tf.math.divide_no_nan(total, size))
            mixed = tf.random.experimental.stateless_fold_in(seed, i)
            drawn = tf.random.stateless_uniform(tf.shape(total), mixed, dtype=total.dtype)
            kept = tf.where(purity > drawn, tf.nn.relu(stacked), -tf.nn.relu(-stacked))
            found.append(kept)
        return found

    def combine(self, jacobian):
        """One gradient from those of the tasks.

        Args:
            jacobian: ``[tasks, parameters]``, float32 or float64.

        Returns:
            ``[parameters]``.
        """
        jacobian = tf.stop_gradient(tf.convert_to_tensor(jacobian))
        if jacobian.shape.rank != 2:
            raise ValueError(f"`jacobian` must be [tasks, parameters]. Received: {jacobian.shape}")
        if not self.built:
            with tf.init_scope():
                self.bind([f"task_{i}" for i in range(jacobian.shape[0])])
        return tf.reduce_sum(self.call(None, [jacobian])[0], 0)

    def get_config(self):
        return {**super().get_config(), "seed": self.seed, "wrt": self.wrt}
