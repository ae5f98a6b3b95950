"""Balancers: one weight per task, found anew in every step."""

from __future__ import annotations

import keras

from tfmtl import words
from tfmtl.balancers.adatask import AdaTask
from tfmtl.balancers.banditmtl import BanditMTL
from tfmtl.balancers.base import Balancer
from tfmtl.balancers.cagrad import CAGrad
from tfmtl.balancers.dwa import DWA
from tfmtl.balancers.emtl import EMTL
from tfmtl.balancers.equal_weights import EqualWeights
from tfmtl.balancers.famo import FAMO
from tfmtl.balancers.fixed_weights import FixedWeights
from tfmtl.balancers.graddrop import GradDrop
from tfmtl.balancers.gradnorm import GradNorm
from tfmtl.balancers.imtlg import IMTLG
from tfmtl.balancers.imtll import IMTLL
from tfmtl.balancers.mgda import MGDA
from tfmtl.balancers.nashmtl import NashMTL
from tfmtl.balancers.nmt import NMT
from tfmtl.balancers.pcgrad import PCGrad
from tfmtl.balancers.pub import PUB
from tfmtl.balancers.rlw import RLW
from tfmtl.balancers.si import SI
from tfmtl.balancers.uncertainty import Uncertainty

#: Every balancer by the name that :func:`get` takes.
BALANCERS: dict[str, type[Balancer]] = {
    balancer.__name__: balancer
    for balancer in (
        AdaTask,
        BanditMTL,
        CAGrad,
        DWA,
        EMTL,
        EqualWeights,
        FAMO,
        FixedWeights,
        GradDrop,
        GradNorm,
        IMTLG,
        IMTLL,
        MGDA,
        NMT,
        NashMTL,
        PCGrad,
        PUB,
        RLW,
        SI,
        Uncertainty,
    )
}


def get(identifier: str | dict | Balancer | None) -> Balancer:
    """The balancer that ``compile(balancer=...)`` means.

    Args:
        identifier: a balancer, its class name, its serialised configuration, or ``None`` for
            :class:`EqualWeights`.

    Raises:
        ValueError: an unknown name, or a balancer that cannot be made from its name alone.
    """
    if identifier is None:
        return EqualWeights()
    if isinstance(identifier, Balancer):
        return identifier
    if isinstance(identifier, dict):
        return keras.saving.deserialize_keras_object(identifier)
    if not isinstance(identifier, str) or identifier not in BALANCERS:
        raise ValueError(
            f"`balancer` must be a balancer, None, or one of {sorted(BALANCERS)}. "
            f"Received: {identifier!r}{words.hint(str(identifier), BALANCERS)}"
        )
    try:
        return BALANCERS[identifier]()
    except TypeError as error:
        raise ValueError(
            f"`balancer={identifier!r}` needs arguments, so pass the object: "
            f"`balancers.{identifier}(...)`. ({error})"
        ) from error


__all__ = [
    "BALANCERS",
    "DWA",
    "EMTL",
    "FAMO",
    "IMTLG",
    "IMTLL",
    "MGDA",
    "NMT",
    "PUB",
    "RLW",
    "SI",
    "AdaTask",
    "Balancer",
    "BanditMTL",
    "CAGrad",
    "EqualWeights",
    "FixedWeights",
    "GradDrop",
    "GradNorm",
    "NashMTL",
    "PCGrad",
    "Uncertainty",
    "get",
]
