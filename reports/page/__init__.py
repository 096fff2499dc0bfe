"""The page: one HTML file that shows the report and loads nothing from anywhere."""
