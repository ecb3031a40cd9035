"""Every error that rtl-plugin raises; each is also the built-in error that fits."""


class RtlError(Exception):
    """The root of all errors raised by rtl-plugin."""

    def __str__(self) -> str:
        # KeyError would show the message quoted and escaped.
        return str(self.args[0]) if self.args else ""


class InvalidArgument(RtlError, ValueError):
    """An argument is out of range, of the wrong kind, or contradicts another."""


class InvalidTicket(RtlError, ValueError):
    """A ticket's masks or state are malformed, or tickets of one set disagree."""


class UnknownTicket(RtlError, KeyError):
    """A ticket name or index is not in the set."""


class StructureMismatch(RtlError, ValueError):
    """Tickets or a file belong to a network of another structure or other weights."""


class NothingPrunable(RtlError, ValueError):
    """No parameter of the model may be masked under the given rule."""


class InvalidGroups(RtlError, ValueError):
    """Data groups are empty, too small, one-shot, or do not cover the samples."""


class InvalidLoss(RtlError, ValueError):
    """A loss is not a differentiable scalar, or does not depend on the model."""


class TrainingDiverged(RtlError, FloatingPointError):
    """A loss became NaN or infinite; the message names stage, group and step."""


class RewindFailed(RtlError, RuntimeError):
    """Weights after a rewind differ from the rewind point."""


class UnmaskedAccess(RtlError, AttributeError):
    """A loss called a method that would run the network without its masks."""


class MaskBypassed(RtlError, RuntimeError):
    """A forward pass read a masked parameter around its mask."""


class CompactOnly(RtlError, RuntimeError):
    """A channel ticket's masked network computes something else than its small network."""


class PruningFailed(RtlError, RuntimeError):
    """A pruning step removed nothing, would empty a layer, or broke the network."""


class InvalidImportance(RtlError, ValueError):
    """An importance returned scores that are not finite or not one a channel."""


class ExportFailed(RtlError, RuntimeError):
    """A network cannot be exported, or what was exported computes something else."""


class UnsupportedOptimizer(RtlError, TypeError):
    """An optimizer's update is not element-wise, so tickets cannot be isolated."""


class DamagedFile(RtlError, ValueError):
    """A file is damaged, truncated, foreign, or of an unknown version."""


class MissingFile(RtlError, FileNotFoundError):
    """There is no file at a path, or a folder where a file was expected."""


class RunFolderMismatch(RtlError, ValueError):
    """A run folder was made with other arguments than the present call."""


class MissingExtra(RtlError, ImportError):
    """An optional dependency is missing; the message holds the install command."""
