// Command empty does nothing: what it costs is what any Go plugin pays to start and end.
package main

func main() {}
