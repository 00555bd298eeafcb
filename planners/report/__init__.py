"""What a plan is handed over as: plan.json, dose.nrrd, dvh.png, plan.png and report.html."""

from trocar.planners.report.artifacts import ARTIFACTS, render_artifacts

__all__ = ["ARTIFACTS", "render_artifacts"]
