"""What balancers have in common that read the tasks' gradients through their Gram matrix."""

from __future__ import annotations

import tensorflow as tf

from tfmtl import compat, solvers
from tfmtl.balancers.base import Balancer, bounded, check_wrt


class GramianBalancer(Balancer):
    """A balancer that finds its weights from the inner products of the tasks' gradients.

    A method is a subclass that implements :meth:`weigh`. It weighs the tasks of a model in
    ``compile(balancer=...)``, or stands alone: :meth:`weights` takes a Gram matrix,
    :meth:`combine` the gradients themselves.

    Args:
        update_every: search the weights every so many steps. Between searches the last ones are
            kept, and a step costs one backward pass instead of one for each task.
        wrt: ``"parameters"``, or ``"representation"`` for the tasks' gradients at the shared
            representation, which the backbone marks with a
            :class:`~tfmtl.models.Representation`: a search then costs each tower's backward pass
            and one of the whole network (MGDA-UB, Sener and Koltun, NeurIPS 2018).
        accumulate: ``"jacobian"``: a search holds the gradients of all tasks at once. With
            ``"gramian"`` it finds the Gram matrix row by row and holds those of one, for a
            further pass each: see docs/performance.md.

    Raises:
        ValueError: ``update_every`` is not a positive integer, ``wrt`` or ``accumulate`` none of
            these, or ``accumulate="gramian"`` at the representation.
    """

    reads = "gramian"

    def __init__(
        self,
        update_every: int = 1,
        wrt: str = "parameters",
        accumulate: str = "jacobian",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if accumulate not in ("jacobian", "gramian"):
            raise ValueError(
                f"`accumulate` must be 'jacobian' or 'gramian'. Received: {accumulate!r}"
            )
        if accumulate == "gramian" and wrt == "representation":
            raise ValueError(
                "`accumulate` must be 'jacobian' with wrt='representation', whose gradients are "
                f"small. Received: {accumulate!r}"
            )
        self.accumulate = accumulate
        if not isinstance(update_every, int) or update_every < 1:
            raise ValueError(f"`update_every` must be a positive integer. Received: {update_every}")
        self.update_every = update_every
        self.wrt = check_wrt(wrt)

    def weigh(self, losses, gramian):
        """The weights ``[tasks]`` from losses ``[tasks]`` and Gram matrix ``[tasks, tasks]``, of
        one floating dtype. Either may hold anything finite.
        """
        raise NotImplementedError

    def build(self, input_shape):
        n = len(self.tasks)
        self._steps_since = compat.add_state(self, "steps_since", (), "int32")
        self._last = compat.add_state(self, "last", (n,), initial=1.0)
        self._norms = compat.add_state(self, "norms", (n,))
        self._cosines = compat.add_state(self, "cosines", (n, n))
        self.built = True

    def call(self, losses, gramian=None):
        weights = self.weigh(losses, gramian)
        self.record(weights, gramian)
        return weights

    def record(self, weights, gramian=None):
        """Keep what a search found, to be used until the next one and to be watched."""
        self._last.assign(bounded(tf.cast(weights, tf.float32)))
        self._norms.assign(tf.sqrt(tf.linalg.diag_part(gramian)))
        self._cosines.assign(solvers.cosines(gramian))

    def restart(self):
        """The next step searches."""
        self._steps_since.assign(0)

    def due(self):
        """Whether this step searches the weights, a boolean scalar."""
        return tf.equal(tf.convert_to_tensor(self._steps_since), 0)

    def count(self, made):
        since = tf.convert_to_tensor(self._steps_since)
        self._steps_since.assign((since + tf.cast(made, tf.int32)) % self.update_every)

    def last(self):
        """The weights of the last search, ``[tasks]``."""
        return tf.convert_to_tensor(self._last)

    def watch(self):
        """``weight_<task>``, ``gradient_norm_<task>`` and ``cosine_<task>_<task>`` of the last
        search.
        """
        n = len(self.tasks)
        weights, norms = self.last(), tf.convert_to_tensor(self._norms)
        cosines = tf.convert_to_tensor(self._cosines)
        return {
            **{f"weight_{task}": weights[i] for i, task in enumerate(self.tasks)},
            **{f"gradient_norm_{task}": norms[i] for i, task in enumerate(self.tasks)},
            **{
                f"cosine_{self.tasks[i]}_{self.tasks[j]}": cosines[i, j]
                for i in range(n)
                for j in range(i + 1, n)
            },
        }

    # Alone, without a model

    @property
    def weights(self):
        """Keras' list of the layer's variables; called, the weights from a Gram matrix.

        Args of the call:
            gramian: ``[tasks, tasks]``, float32 or float64: inner products of the gradients.
            losses: ``[tasks]``, for a method that reads them; ones by default.

        Returns the weights ``[tasks]`` in the dtype of ``gramian``, as constants to
        differentiation. A method with a state binds itself to the number of tasks at the first
        call, and goes on from there at each further one.
        """
        return _Weights(super().weights, self._weights_alone)

    def _weights_alone(self, gramian, losses=None):
        gramian = tf.convert_to_tensor(gramian)
        n = gramian.shape[0]
        if gramian.shape.rank != 2 or n is None or gramian.shape[1] != n:
            raise ValueError(f"`gramian` must be [tasks, tasks]. Received: {gramian.shape}")
        if not gramian.dtype.is_floating:
            raise ValueError(f"`gramian` must be float32 or float64. Received: {gramian.dtype}")
        losses = tf.ones_like(gramian[0]) if losses is None else tf.cast(losses, gramian.dtype)
        if losses.shape != (n,):
            raise ValueError(f"`losses` must be [{n}]. Received: {losses.shape}")
        if not self.tasks:
            with tf.init_scope():
                self.bind([f"task_{i}" for i in range(n)])
        if len(self.tasks) != n:
            raise ValueError(
                f"This {type(self).__name__} balances {len(self.tasks)} tasks. "
                f"Received a `gramian` of {n}."
            )
        return tf.stop_gradient(self.weigh(losses, gramian))

    def combine(self, jacobian, losses=None):
        """One gradient from those of the tasks.

        Args:
            jacobian: ``[tasks, parameters]``, float32 or float64.
            losses: as in :meth:`weights`.

        Returns:
            ``[parameters]``, the weighted sum of the rows.
        """
        jacobian = tf.convert_to_tensor(jacobian)
        if jacobian.shape.rank != 2:
            raise ValueError(f"`jacobian` must be [tasks, parameters]. Received: {jacobian.shape}")
        jacobian = tf.stop_gradient(jacobian)
        weights = self.weights(tf.matmul(jacobian, jacobian, transpose_b=True), losses)
        return tf.linalg.matvec(jacobian, weights, transpose_a=True)

    def get_config(self):
        return {
            **super().get_config(),
            "update_every": self.update_every,
            "wrt": self.wrt,
            "accumulate": self.accumulate,
        }


class _Weights(list):
    """A list that can be called."""

    def __init__(self, variables, find):
        super().__init__(variables)
        self._find = find

    def __call__(self, gramian, losses=None):
        return self._find(gramian, losses)
