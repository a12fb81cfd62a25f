"""What people look at in Grafana: three dashboards, each answers one question, and the program that writes them."""
