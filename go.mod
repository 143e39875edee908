module github.com/netcleat/netcleat

go 1.26
