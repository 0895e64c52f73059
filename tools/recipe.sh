# Sourced by demo.sh and label.sh: the sizes and epochs of trainings on small data sets. Data other
# than the drawn birds are trained for at least as many epochs as these, and for at least as many
# steps of SGD (docs/small_data.md).

batch_size=8
cls_size=(--resize 166 --crop 144) cls_epochs=3 cls_steps=215
cam_size=(--resize 166 --crop 144) cam_epochs=12 cam_steps=530
mask_size=(--resize 256)
seg_size=(--resize 222 --crop 192) seg_epochs=4 seg_steps=290 seg_lr=0.1

epochs() {  # $1: the fewest epochs, $2: the fewest steps; images: number of training images
  local enough=$((($2 * batch_size + images - 1) / images))
  echo $((enough > $1 ? enough : $1))
}
