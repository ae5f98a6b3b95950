"""Every difference between Keras 2.15 and Keras 3; nothing else asks for a version."""

from __future__ import annotations

import builtins
import contextlib
import functools
import gc
import importlib
import importlib.machinery
import importlib.util
import io
import numbers
import os
import platform
import types
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util

KERAS_3 = int(keras.__version__.split(".")[0]) >= 3


def tf_variable(variable) -> tf.Variable:
    """The ``tf.Variable`` behind a Keras variable; one of TensorFlow's is handed back as it is.

    Keras 3's public ``value`` would cast all of it under mixed precision.
    """
    return getattr(variable, "_value", variable) if KERAS_3 else variable


def unread_table(embedding) -> tf.Variable | None:
    """The table of a ``keras.layers.Embedding`` that would read all of it for a batch's rows.

    ``None`` where it gathers rows by itself, in Keras 2.15, or where rows are more than those of
    the table: with LoRA and in a quantised one.
    """
    if not KERAS_3 or embedding.lora_enabled or embedding.quantization_mode:
        return None
    return tf_variable(embedding._embeddings)


def variable_name(variable) -> str:
    """The readable path of a variable inside its model."""
    return variable.path if KERAS_3 else variable.name.removesuffix(":0")


def dtype_name(variable) -> str:
    """The dtype of a variable, ``"float32"`` for example."""
    return tf.as_dtype(variable.dtype).name


def is_floating(variable) -> bool:
    """Whether a variable holds floating-point numbers."""
    return tf.as_dtype(variable.dtype).is_floating


def unscaled(optimizer):
    """The optimizer behind float16's loss scaling; any other itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def check_learning_rate(optimizer) -> None:
    """Raise ``ValueError`` for a constant learning rate that is negative or not a number."""
    rate = unscaled(optimizer).get_config().get("learning_rate")
    if isinstance(rate, numbers.Real) and not float(rate) >= 0:
        raise ValueError(f"`optimizer` must have a learning rate of at least 0. Received: {rate}")


def optimizer_variables(optimizer) -> list:
    """Slots, iteration counter and learning rate of an optimizer."""
    return list(optimizer.variables) if KERAS_3 else list(optimizer.variables())


def build_optimizer(optimizer, trainable_variables: Sequence) -> None:
    """Create an optimizer's slots, unless it has them."""
    if not getattr(optimizer, "built" if KERAS_3 else "_built", False):
        optimizer.build(trainable_variables)


def reset_optimizer(optimizer, trainable_variables: Sequence) -> None:
    """Give every slot and the step counter the value of a new optimizer; the learning rate stays.

    The slots are filled from a twin that is built from the same configuration, because not all of
    them start at zero (AdaGrad's accumulator does not).
    """
    twin = type(optimizer).from_config(optimizer.get_config())
    twin.build(trainable_variables)
    for mine, fresh in zip(optimizer_variables(optimizer), optimizer_variables(twin), strict=True):
        if "learning_rate" not in variable_name(mine):
            mine.assign(fresh)


def learning_rate(optimizer):
    """The learning rate of the step to come, a scalar; a schedule's value where there is one."""
    rate = optimizer._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return rate(optimizer.iterations)
    return tf.convert_to_tensor(tf_variable(rate))


def slot(optimizer, name: str, variable):
    """What an optimizer that is built keeps for a variable, from its list of that name."""
    if KERAS_3:
        return getattr(optimizer, name)[optimizer._get_variable_index(variable)]
    return getattr(optimizer, name)[optimizer._index_dict[optimizer._var_key(variable)]]


def weight_decay(optimizer, variable) -> float:
    """How much of a variable an optimizer takes away in a step, per unit of learning rate."""
    decay = optimizer.weight_decay
    return decay if decay and optimizer._use_weight_decay(variable) else 0.0


def get_loss(identifier):
    """A loss object or function from what ``compile`` accepts for one task."""
    return keras.losses.get(identifier)


def loss_name(loss) -> str:
    """The name Keras gives the function of a loss, ``"binary_crossentropy"`` for example."""
    function = getattr(loss, "fn", loss)
    return getattr(function, "__name__", type(function).__name__)


def get_metric(identifier):
    """A metric object from what ``compile`` accepts.

    A name Keras knows as a function alone becomes a mean of it, and a metric made from a name
    reports under it, as Keras itself does.
    """
    if isinstance(identifier, keras.metrics.Metric):
        return identifier
    metric = keras.metrics.get(identifier)
    if isinstance(metric, keras.metrics.Metric):
        if KERAS_3 and isinstance(identifier, str):
            metric.name = identifier
        return metric
    if isinstance(metric, type):
        return metric()
    name = identifier if isinstance(identifier, str) else metric.__name__
    return keras.metrics.MeanMetricWrapper(metric, name=name)


def add_state(layer, name: str, shape, dtype: str = "float32", initial=0):
    """A variable that no optimizer trains; equal on all replicas, so the first speaks."""
    aggregation = "only_first_replica" if KERAS_3 else tf.VariableAggregation.ONLY_FIRST_REPLICA
    return layer.add_weight(
        name=name,
        shape=shape,
        dtype=dtype,
        initializer=keras.initializers.Constant(initial),
        trainable=False,
        aggregation=aggregation,
    )


@contextlib.contextmanager
def unlocked(layer) -> Iterator[None]:
    """Within, a layer may be given sublayers though Keras 3 has locked it at its first call."""
    tracker = layer._tracker if KERAS_3 else None
    if tracker is None or not tracker.locked:
        yield
        return
    tracker.unlock()
    try:
        yield
    finally:
        tracker.lock(tracker._lock_violation_msg)


def scale_loss(optimizer, loss):
    """The loss to differentiate under float16 mixed precision; elsewhere the loss itself."""
    if KERAS_3:
        return optimizer.scale_loss(loss)
    scale = getattr(optimizer, "get_scaled_loss", None)
    return loss if scale is None else scale(loss)


def unscale_gradients(optimizer, gradients: Sequence) -> list:
    """Gradients as ``apply_gradients`` wants them; Keras 3's scaling optimizer unscales itself."""
    unscale = None if KERAS_3 else getattr(optimizer, "get_unscaled_gradients", None)
    return list(gradients) if unscale is None else unscale(gradients)


def for_optimizer(gradient):
    """A gradient in the form that the optimizer steps right by.

    Where an id occurs twice in a batch, Keras 3's optimizers would square its rows one by one
    instead of their sum. They write the whole table anyway, so it costs nothing to hand it over
    dense. Keras 2.15 merges the rows itself.
    """
    return tf.convert_to_tensor(gradient) if KERAS_3 and gradient is not None else gradient


def steps_per_execution(model):
    """How many steps Keras makes in a call of the training function, a number or a variable of one;
    ``None`` for one step. Not to be asked in a graph.
    """
    steps = model.steps_per_execution if KERAS_3 else model._steps_per_execution
    return None if steps_at_once(model) == 1 else steps


def steps_at_once(model) -> int:
    """The same as a number."""
    steps = model.steps_per_execution if KERAS_3 else model._steps_per_execution
    return 1 if steps is None else int(steps if KERAS_3 else steps.numpy())


@contextlib.contextmanager
def a_batch_an_execution(model) -> Iterator[None]:
    """Within, Keras 3 predicts batch by batch whatever ``compile(steps_per_execution=...)`` says.

    It would build as many copies of the network into one graph, and another graph for the batches
    that are left over.
    """
    if not KERAS_3 or getattr(model, "steps_per_execution", 1) == 1:
        yield
        return
    steps, model.steps_per_execution = model.steps_per_execution, 1
    try:
        yield
    finally:
        model.steps_per_execution = steps


def start_at_epoch(model, epoch: int | None) -> None:
    """Within ``on_train_begin``, let ``fit`` start at a later epoch, the first being 0; ``None``
    when it has ended.
    """
    if KERAS_3:
        model._initial_epoch = epoch
    else:
        model._training_state = None if epoch is None else _InitialEpoch(epoch)


@contextlib.contextmanager
def arrays_from_files() -> Iterator[None]:
    """Within, Keras loads weights as arrays.

    Keras 2.15 takes what h5py hands over as it is, and that cannot be assigned to the metrics of
    several replicas.
    """
    if KERAS_3:
        yield
        return
    store = importlib.import_module("keras.src.saving.saving_lib").H5IOStore
    get = store.get
    store.get = lambda self, path: {name: each[()] for name, each in get(self, path).items()}
    try:
        yield
    finally:
        store.get = get


class _InitialEpoch:
    """What Keras 2.15's ``fit`` asks where it is to start."""

    def __init__(self, epoch: int):
        self._epoch = epoch

    def maybe_load_initial_counters_from_ckpt(self, steps_per_epoch, initial_epoch, mode):
        return self._epoch, 0


#: Keras' own indexable data set.
PyDataset = keras.utils.PyDataset if KERAS_3 else keras.utils.Sequence


def compiled_by_xla() -> bool:
    """Whether what is traced now will be compiled by XLA as a part of what is around it."""
    return control_flow_util.GraphOrParentsInXlaContext(ops.get_default_graph())


def write_archive(archive, folder: str) -> None:
    """Write an ``ExportArchive`` without printing its signature."""
    if KERAS_3:
        archive.write_out(folder, verbose=False)
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            archive.write_out(folder)


def input_specs(net):
    """``TensorSpec`` of a functional model's inputs in their structure, ``None`` for others."""
    try:
        inputs = net.input
    except (AttributeError, RuntimeError):
        return None
    if inputs is None:
        return None
    return tf.nest.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name.split(":")[0]), inputs
    )


def forget_graphs() -> None:
    """Give back what models that are gone have left: Keras' state, and their graphs.

    TensorFlow keeps the gradient function of every custom gradient that was ever traced, and with
    it the graph it was traced in; Keras' layers and optimizers have custom gradients as ours have.
    A graph that exists already cannot be differentiated once more after this.
    """
    keras.backend.clear_session()
    known = ops.gradient_registry._registry
    for name in [name for name in known if name.startswith("CustomGradient-")]:
        del known[name]
    gc.collect()


def serialize(thing):
    """The configuration of a Keras object, for ``deserialize``; strings and ``None`` stay."""
    if thing is None or isinstance(thing, (str, int, float, bool)):
        return thing
    return keras.saving.serialize_keras_object(thing)


def deserialize_tree(config):
    """A structure of dicts and lists with every description in it made into its object."""
    if isinstance(config, dict) and "class_name" not in config:
        return {key: deserialize_tree(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [deserialize_tree(value) for value in config]
    return deserialize(config)


def deserialize(config):
    """The object that ``serialize`` described."""
    if isinstance(config, dict) and "class_name" in config:
        return keras.saving.deserialize_keras_object(config)
    return config


@contextlib.contextmanager
def xla_ops_in_traces() -> Iterator[None]:
    """Within, programs that XLA compiles show their ops in a profiler's trace.

    Later ones than TensorFlow 2.15's do so anyway. That one reads the flag when it first compiles
    in a process; from then on it has no effect.
    """
    before = os.environ.get("XLA_FLAGS")
    if not KERAS_3:
        os.environ["XLA_FLAGS"] = f"{before or ''} --xla_cpu_enable_xprof_traceme=true"
    try:
        yield
    finally:
        if before is not None:
            os.environ["XLA_FLAGS"] = before
        elif not KERAS_3:
            os.environ.pop("XLA_FLAGS", None)


@functools.cache
def tensorflow_ranking() -> types.SimpleNamespace:
    """TF-Ranking's modules ``utils``, ``data``, ``losses_impl`` and ``metrics_impl``, by name.

    Keras 2.15's TensorFlow imports the package. Later ones cannot, as it wants
    ``tensorflow.estimator``, which is gone; these four modules need nothing of it and are loaded
    from their files.

    Raises:
        ImportError: TF-Ranking is not installed.
    """
    names = ("utils", "data", "losses_impl", "metrics_impl")
    spec = importlib.util.find_spec("tensorflow_ranking")
    if spec is None or not spec.submodule_search_locations:
        estimator_is_there = tuple(map(int, tf.__version__.split(".")[:2])) < (2, 16)
        raise ImportError(
            "`tfmtl.ranking` needs TF-Ranking, which is not installed. For TensorFlow "
            f"{tf.__version__} on Python {platform.python_version()}: "
            f"pip install tensorflow-ranking=={'0.5.5' if estimator_is_there else '0.5.3'}"
        )
    if not KERAS_3:
        imported = {name: f"tensorflow_ranking.python.{name}" for name in names}
        return types.SimpleNamespace(
            **{name: importlib.import_module(path) for name, path in imported.items()}
        )
    return _load_alone(spec.submodule_search_locations[0], names)


def _load_alone(folder: str, names: Sequence[str]) -> types.SimpleNamespace:
    """Modules of TF-Ranking from their files, without the package.

    They import each other and, for annotations, ``tensorflow.estimator``. Both are answered by an
    ``__import__`` that these modules alone see: nothing enters ``sys.modules``, so that for
    everybody else the package and the estimator are as missing as before, in other threads too.
    """
    loaded = types.SimpleNamespace()

    def import_for_them(name, globals=None, locals=None, fromlist=(), level=0):
        if name == "tensorflow" and tuple(fromlist or ()) == ("estimator",):
            return types.SimpleNamespace(estimator=None)
        if name == "tensorflow_ranking.python":
            return loaded
        return builtins.__import__(name, globals, locals, fromlist, level)

    for name in names:
        loader = importlib.machinery.SourceFileLoader(
            f"tensorflow_ranking.python.{name}", os.path.join(folder, "python", f"{name}.py")
        )
        module = types.ModuleType(loader.name)
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": import_for_them}
        loader.exec_module(module)
        setattr(loaded, name, module)
    return loaded
