module example.org/loaded

go 1.19
