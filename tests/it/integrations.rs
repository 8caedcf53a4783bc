//! Partners' integrations: how they are managed, tried, called, told, and how they are.
