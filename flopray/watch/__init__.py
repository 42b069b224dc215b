"""What people and programs see of a sweep: metrics, status of a run's folder, its log."""
