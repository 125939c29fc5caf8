"""Errors of a cluster's job server."""

from __future__ import annotations

from .base import ClusterError


class JobServerError(ClusterError):
    """The job server of a cluster refuses.

    The message has its answer; `status` is that of HTTP.

    Attributes:
        status: of its answer, as in HTTP; 0 if it was not asked.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @classmethod
    def refused(cls, address: str, request: str, status: int, text: str) -> JobServerError:
        """A request is not taken.

        Args:
            address: of the server.
            request: method and path.
            status: of the answer.
            text: of the answer, often a traceback of the server's, whose last line says what is wrong.
        """
        lines = [line.strip() for line in text.splitlines() if line.strip(" .")]
        said = (lines or ["no reason"])[-1].rstrip(".")[:600] + "."
        return cls(
            f"The job server at {address} answers {request} with status {status}: {said} Its log "
            "tells more: dashboard.log in Ray's log folder on the head.",
            status,
        )

    @classmethod
    def too_large(cls, address: str, num_bytes: int, limit_bytes: int) -> JobServerError:
        """A package has more bytes than are sent at once.

        Args:
            address: of the server.
            num_bytes: of the package.
            limit_bytes: that it may have.
        """
        return cls(
            f"A package of {num_bytes / 1e6:,.0f} MB is more than the {limit_bytes / 1e6:,.0f} MB that go to the job "
            f"server at {address} at once. Move large files out of what is sent."
        )


class NoSuchJobError(JobServerError):
    """A cluster does not know a job: it was never made there, was deleted, or Ray was started anew since.

    Submit the script again.
    """

    def __init__(self, address: str, submission_id: str) -> None:
        super().__init__(
            f"The cluster at {address} knows no job {submission_id}: it was never made there, somebody has deleted it, "
            "or Ray has been started anew since, which forgets all jobs.",
            404,
        )
