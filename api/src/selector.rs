//! Label selectors, as strings (`app=web,tier in (a,b)`) and as `LabelSelector` objects.
