"""What plugs into MMEngine's Runner."""
