const limit = 30 * 1024 * 1024; // above every server's; the server says its own
const read = (file) => {
  if (!file || !file.type.startsWith("image/")) return;
  if (file.size > limit) return;
  const reader = new FileReader();
  reader.onload = () => { props.value = reader.result; };
  reader.readAsDataURL(file);
};
element.addEventListener("change", (event) => read(event.target.files?.[0]));
element.addEventListener("dragover", (event) => { event.preventDefault(); element.classList.add("hf-over"); });
element.addEventListener("dragleave", () => element.classList.remove("hf-over"));
element.addEventListener("drop", (event) => {
  event.preventDefault();
  element.classList.remove("hf-over");
  read([...event.dataTransfer.files][0]);
});
element.addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") element.querySelector("input").click();
});
document.addEventListener("paste", (event) => {
  if (element.offsetParent) read([...event.clipboardData.files][0]);
});
