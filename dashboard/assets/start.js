// The module lies beside this file, in a folder that is named after its content.
import start from "./dashboard.js";

start({ module_or_path: new URL("./dashboard_bg.wasm", import.meta.url) }).catch((error) => {
  const said = document.createElement("p");
  said.className = "problem";
  said.textContent = `The dashboard could not start: ${error}`;
  document.body.append(said);
});
