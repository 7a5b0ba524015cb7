// Runs before the first paint, so that a chosen theme does not flash the other one. No inline script: the policy forbids it.
try {
  const theme = localStorage.getItem("bitmill-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is switched off: the system's theme it is.
}
