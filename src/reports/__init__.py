"""What is made of finished runs: records, statistics, tables, plots and pages."""
